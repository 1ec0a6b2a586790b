"""A webhook's receiver on loopback: it keeps what it is sent, and behaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """``behaviours`` are used up one by one; after them everything is taken with 204."""

    behaviours: list[Behaviour] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        async with TestServer(app) as server:
            self.url = str(server.make_url("/hook"))
            yield

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.received.append((dict(request.headers), await request.read()))
        self.arrived.set()
        if self.behaviours:
            return await self.behaviours.pop(0)(request)
        return web.Response(status=204)

    @property
    def ids(self) -> list[str]:
        """The ids of what came, repetitions too."""
        return [headers["webhook-id"] for headers, _ in self.received]

    def verified(self, number: int = 0, secret: str = SECRET) -> Any:
        """The event of a delivery, whose signature must be good."""
        headers, body = self.received[number]
        return Webhook(secret).verify(body, headers)


def status(code: int, **headers: str) -> Behaviour:
    """Answer so."""

    async def behave(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return behave


async def hang(request: web.Request) -> web.StreamResponse:
    """Don't answer while the caller waits."""
    with contextlib.suppress(asyncio.CancelledError):
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - it hangs
            await asyncio.sleep(0.01)
    return web.Response()


async def break_off(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of answering."""
    if request.transport:
        request.transport.close()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer 200 with a body that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while True:
            await response.write(b"x" * 65536)
    return response
