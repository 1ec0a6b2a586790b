"""The tool service: the tool desk over HTTP, for agents that hold its key.

It trusts its callers to say for which customer they call: the agent takes that from the conversation, and nobody else
holds the key. What the limits are is decided here, by the service's own configuration.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from supportfleet_runtime.gateway.endpoints import JSON, json_response
from supportfleet_runtime.gateway.problems import HttpProblemError, field_errors
from supportfleet_runtime.health import Check, check
from supportfleet_runtime.observability.metrics import EXPOSITION, Metrics
from supportfleet_runtime.tools.arguments import Arguments
from supportfleet_runtime.tools.backend import ToolRequest
from supportfleet_runtime.tools.catalogue import TOOLS, Tool
from supportfleet_runtime.tools.desk import ToolDesk
from supportfleet_runtime.tools.openapi import document
from supportfleet_runtime.tools.outcome import KeyReusedError, Outcome
from supportfleet_runtime.tools.wire import EFFECTS_PATH, IDEMPOTENCY_KEY, KEY_PATTERN, TOOLS_PATH, CallBody

MAX_BODY: Final = 32 * 1024
BODY_SECONDS: Final = 10.0
Model = TypeVar("Model", bound=BaseModel)
KEY: Final = re.compile(KEY_PATTERN)


@dataclass(frozen=True)
class ToolService:
    """The endpoints. ``limit`` is how long a call may take."""

    desk: ToolDesk
    metrics: Metrics
    checks: Mapping[str, Check]
    limit: float

    def add_routes(self, app: web.Application) -> None:
        """Serve all endpoints with ``app``."""
        for tool in TOOLS.values():
            app.router.add_post(f"{TOOLS_PATH}/{tool.name}", self._calling(tool))
        app.router.add_get(f"{EFFECTS_PATH}/{{key}}", self.get_effect)
        app.router.add_get("/openapi.json", self.get_openapi)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.get_metrics)

    def _calling(self, tool: Tool) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def post(request: web.Request) -> web.Response:
            """Carry a call out."""
            key = _key(request) if tool.changes else None
            body = _validated(CallBody, await _json(request), "#")
            arguments: Arguments = _validated(tool.arguments, body.arguments, "#/arguments")
            asked = ToolRequest(tool, arguments, body.customer_id, body.conversation_id, key)
            try:
                outcome = await self.desk.perform(asked, within=self.limit)
            except KeyReusedError as error:
                raise HttpProblemError(HTTPStatus.CONFLICT, "key-reused", str(error)) from error
            self.metrics.tool_calls.labels(tool=tool.name, status=outcome.status.value).inc()
            return json_response(outcome.model_dump(mode="json"))

        return post

    async def get_effect(self, request: web.Request) -> web.Response:
        """What came of the call with this key."""
        key = request.match_info["key"]
        outcome: Outcome | None = await self.desk.effect(key, within=self.limit) if KEY.fullmatch(key) else None
        if outcome is None:
            raise HttpProblemError(HTTPStatus.NOT_FOUND, "no-such-effect", "no call with this key was carried out")
        return json_response(outcome.model_dump(mode="json"))

    async def get_openapi(self, _request: web.Request) -> web.Response:
        """This service's description."""
        return json_response(document())

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether the process lives: if it answers, it does."""
        return json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether calls can be carried out, and why not."""
        readiness = await check(self.checks)
        return json_response(readiness.as_json(), HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Figures for Prometheus."""
        return web.Response(body=self.metrics.render(), headers={"Content-Type": EXPOSITION})


def _key(request: web.Request) -> str:
    given = request.headers.get(IDEMPOTENCY_KEY, "")
    if not KEY.fullmatch(given):
        detail = f"send {IDEMPOTENCY_KEY} of 16 to 64 letters, digits, '_' and '-': the same for a repetition"
        raise HttpProblemError(HTTPStatus.BAD_REQUEST, "key-missing", detail)
    return given


async def _json(request: web.Request) -> Any:
    if request.content_type != JSON or request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise HttpProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", f"send {JSON} as it is")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return orjson.loads(await request.read())
    except TimeoutError as error:
        detail = f"the body was not sent within {BODY_SECONDS:g} s"
        raise HttpProblemError(HTTPStatus.REQUEST_TIMEOUT, "request-timeout", detail) from error
    except (orjson.JSONDecodeError, web.RequestPayloadError) as error:
        raise HttpProblemError(HTTPStatus.BAD_REQUEST, "malformed-json", "the body is no JSON") from error


def _validated(model: type[Model], value: Any, at: str) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        detail, errors = "the call is not as described: see /openapi.json", field_errors(error, at)
        raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-call", detail, errors) from error
