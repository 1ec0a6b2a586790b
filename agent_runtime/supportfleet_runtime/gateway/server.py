"""How applications are served over HTTP: within which limits, and until when.

On SIGTERM or SIGINT no new connection is taken, requests that wait get their answers within the grace, and then the
application closes what it opened.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import structlog
from aiohttp import web

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


def make_runner(app: web.Application, **options: Any) -> web.AppRunner:
    """What serves an application, with ``options`` beside the usual ones."""
    return web.AppRunner(app, **{**OPTIONS, **options})


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
