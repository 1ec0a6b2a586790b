"""How applications are served over HTTP: within which limits, until when, and what is no HTTP at all.

What the parser refuses reaches no handler and no middleware, and is refused with a problem document all the same.

On SIGTERM or SIGINT no new connection is taken, requests that wait get their answers within the grace, and then the
application closes what it opened.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import structlog
from aiohttp import web

from supportfleet_runtime.gateway.problems import HttpProblemError, internal, of_aiohttp
from supportfleet_runtime.gateway.request_ids import HEADER as REQUEST_ID
from supportfleet_runtime.gateway.request_ids import request_id

log = structlog.get_logger()

BACKLOG: Final = 1024
OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "access_log": None,  # a line for each message is logged anyway
        "auto_decompress": False,  # no body is worth unpacking a bomb
        "keepalive_timeout": 75.0,  # for the next request's whole head, too: however slowly it drips in
        "max_line_size": 8190,
        "max_field_size": 8190,
        "max_headers": 128,
    }
)
MALFORMED: Final = HttpProblemError(
    HTTPStatus.BAD_REQUEST, "malformed-request", "this is no well-formed HTTP/1.1 request, or its head is too large"
)


class Connection(web.RequestHandler):
    """A connection that refuses what it can't read with a problem document."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Refuse it. ``message`` quotes what was sent, so it is not repeated."""
        super().handle_error(request, status, exc, message)  # logs it, and breaks off where an answer has begun
        problem = MALFORMED if status == HTTPStatus.BAD_REQUEST else internal()
        response = problem.response(request)
        response.headers[REQUEST_ID] = request_id(request)
        response.force_close()
        return response


class Server(web.Server):
    """Makes such connections."""

    def __call__(self) -> Connection:
        """A connection that somebody made."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves an application with such a server."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await made.request_handler(request)
            except web.HTTPException as error:  # no middleware saw it: an expectation (Expect) that nobody meets
                return of_aiohttp(error).response(request)

        return Server(handle, request_factory=made.request_factory, **self._kwargs)


def make_runner(app: web.Application, **options: Any) -> Runner:
    """What serves an application, with ``options`` beside the usual ones."""
    return Runner(app, **{**OPTIONS, **options})


async def serve_until(
    stop: asyncio.Event, app: web.Application, host: str, port: int, *, setting: str, grace: float
) -> bool:
    """Serve until ``stop``, which signals set too; whether it could listen. ``setting`` names the port's variable."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = make_runner(app, shutdown_timeout=grace)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        log.info("listening", addresses=[f"{address[0]}:{address[1]}" for address in runner.addresses])
        await stop.wait()
        log.info("draining")
    except OSError as error:
        log.critical("not_listening", port=port, reason=error.strerror, remedy=f"set {setting} to a free port")
        return False
    finally:
        await runner.cleanup()
        log.info("stopped")
    return True
