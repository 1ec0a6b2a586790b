"""The table of endpoints: what is served, and what ``/openapi.json`` says of it, are one and the same.

A part that brings endpoints has a method that returns them, as ``Gateway.endpoints`` does, and ``app.build`` adds them
to the table. An ``Endpoint`` names what is its own: its body, its parameters, and each status that it answers with.
What belongs to the gateway as a whole (401, 429, 503, the errors of bodies) ``openapi`` adds by itself. It is a
promise: a test has a generator of requests call every endpoint and compare what comes back with what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel

from supportfleet_runtime.gateway.problems import Handler

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
ID_PATTERN: Final = "^[a-z]{1,8}_[0-9A-Z]{26}$"


class Access(Enum):
    """Who may call an endpoint."""

    OPEN = "anyone, whatever is configured"
    CUSTOMER = "who has a key or a token, where any are configured"


@dataclass(frozen=True)
class Answer:
    """One status of an endpoint. Without a ``model`` the body is text of that media type."""

    description: str
    model: type[BaseModel] | None = None
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each of its headers says."""
    streams: bool = False
    """Whether it comes as server-sent events where they are asked for."""


@dataclass(frozen=True)
class Parameter:
    """A member of the path, the query or the headers; ``schema`` is JSON Schema."""

    name: str
    where: Literal["path", "query", "header"]
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A method of a path. ``problems`` are the statuses of its own that are errors, with what each means."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    handler: Handler
    name: str
    summary: str
    answers: Mapping[int, Answer]
    problems: Mapping[int, str] = field(default_factory=dict)
    parameters: Sequence[Parameter] = ()
    body: type[BaseModel] | None = None
    access: Access = Access.CUSTOMER


def json_response(
    body: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A document as an answer."""
    return web.Response(body=orjson.dumps(body), status=status.value, content_type=JSON, headers=headers)


def identifier(name: str, what: str) -> Parameter:
    """An id in a path."""
    return Parameter(name, "path", f"The {what}'s id.", {"type": "string", "pattern": ID_PATTERN})


def add_endpoints(app: web.Application, endpoints: Sequence[Endpoint]) -> None:
    """Serve the table. ``HEAD`` goes with ``GET``."""
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, endpoint.handler)
        if endpoint.method == "GET":
            app.router.add_route("HEAD", endpoint.path, endpoint.handler)


def open_paths(endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """The paths that need no key."""
    return frozenset(endpoint.path for endpoint in endpoints if endpoint.access is Access.OPEN)
