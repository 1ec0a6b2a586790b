"""Errors as RFC 9457 ``application/problem+json``: every response that is an error is one.

``type`` is a URN that programs may rely on; ``errors`` names the places in the body, as JSON pointers in a fragment;
``request_id`` is the one that the logs know the request by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from aiohttp import web
from pydantic import ValidationError

from supportfleet_runtime.errors import NotFoundError, StorageUnavailableError, SupportfleetError
from supportfleet_runtime.gateway.request_ids import request_id

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "2"


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong in a body."""

    pointer: str
    detail: str


def field_errors(error: ValidationError, at: str = "#") -> list[FieldError]:
    """All that is wrong in the part of a body that lies ``at`` this pointer, without what was sent."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [FieldError(at + _pointer(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in found]


@dataclass(eq=False)  # an exception is hashable
class HttpProblemError(SupportfleetError):
    """A request that can't be answered."""

    status: HTTPStatus
    kind: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, request: web.BaseRequest) -> web.Response:
        """The problem document."""
        body: dict[str, Any] = {
            "type": f"urn:supportfleet:problem:{self.kind}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "request_id": request_id(request),
        }
        if self.errors:
            body["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in self.errors]
        return web.Response(
            body=orjson.dumps(body), status=self.status.value, content_type=MEDIA_TYPE, headers=self.headers
        )


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into a problem document."""
    try:
        return await handler(request)
    except HttpProblemError as problem:
        return problem.response(request)
    except NotFoundError as error:
        return HttpProblemError(HTTPStatus.NOT_FOUND, "not-found", str(error)).response(request)
    except StorageUnavailableError as error:
        log.warning("storage_unavailable", reason=str(error), request_id=request_id(request))
        return unavailable("the database can't be reached").response(request)
    except web.HTTPException as error:
        return of_aiohttp(error).response(request)
    except Exception:
        log.exception("request_failed", method=request.method, route=_route(request), request_id=request_id(request))
        return internal().response(request)


def unavailable(detail: str) -> HttpProblemError:
    """What is temporarily impossible."""
    headers = {"Retry-After": RETRY_AFTER}
    return HttpProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, headers=headers)


def internal() -> HttpProblemError:
    """What is a bug."""
    detail = "something went wrong here; it was logged"
    return HttpProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def of_aiohttp(error: web.HTTPException) -> HttpProblemError:
    """What aiohttp refuses by itself."""
    status = HTTPStatus(error.status)
    kept = {name: value for name, value in error.headers.items() if name in {"Allow", "Location"}}
    return HttpProblemError(
        status, status.phrase.lower().replace(" ", "-"), status.description or status.phrase, headers=kept
    )


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location)


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
