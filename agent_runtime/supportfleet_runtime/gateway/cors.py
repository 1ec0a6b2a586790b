"""Cross-origin requests: which other sites' pages may call the gateway from a browser. None, unless configured.

Tokens and keys travel in headers that a page's script sets, never in cookies, so credentials are not allowed along. A
preflight asks before the request with its key comes, so it is answered without one.
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from supportfleet_runtime.gateway.problems import Handler

METHODS: Final = "GET, POST"
HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Request-Id"
EXPOSED: Final = "Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
MAX_AGE: Final = "600"


class Cors:
    """Lets pages of ``origins`` call."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    @property
    def middleware(self) -> Middleware:
        """Answers preflights, before anybody is asked for a key."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
                return await handler(request)
            headers = {hdrs.ACCESS_CONTROL_MAX_AGE: MAX_AGE}
            if self._is_allowed(request):
                headers |= {hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS, hdrs.ACCESS_CONTROL_ALLOW_HEADERS: HEADERS}
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)

        return answer

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell the browser whether the page may see the response (a signal handler)."""
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self._is_allowed(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED

    def _is_allowed(self, request: web.Request) -> bool:
        return request.headers.get(hdrs.ORIGIN) in self._origins
