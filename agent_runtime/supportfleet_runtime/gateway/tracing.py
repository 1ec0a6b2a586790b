"""A span for each request of the API, in the caller's trace where it sends one (W3C ``traceparent``).

Probes and metrics have none: they come every few seconds, and there is nothing to be learnt from them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from supportfleet_runtime.gateway.problems import Handler
from supportfleet_runtime.observability.tracing import Field, Kind, Tracer

TRACED: Final = "/v1/"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "_OTHER"


def tracing_middleware(tracer: Tracer) -> Middleware:
    """Outermost, so that a span is as long as its request, and sees the status that the caller does."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(TRACED):
            return await handler(request)
        # What isn't known is the caller's text, which spans don't hold.
        method = request.method if request.method in METHODS else OTHER
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else OTHER
        fields = {Field.METHOD: method, Field.ROUTE: route}
        name = f"{method} {route}"
        with tracer.begin(name, Kind.SERVER, fields, parent=request.headers.get("traceparent")) as serving:
            response = await handler(request)
            serving.note(Field.STATUS, response.status)
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                serving.fail(str(response.status))
            return response

    return trace
