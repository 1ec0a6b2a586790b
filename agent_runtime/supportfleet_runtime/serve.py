"""The commands ``serve``, ``gateway``, ``worker`` and ``migrate``: the application as a process.

On SIGTERM the process drains: no new connection is taken, requests that wait get their answers, then the worker
finishes what it holds, gives the rest back, and the database is closed.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Final

import structlog
import uvloop
from aiohttp import web

from supportfleet_runtime.app import PARTS, SERVER_OPTIONS, build
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import StorageError, StorageUnavailableError
from supportfleet_runtime.parts import Progress
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate

log = structlog.get_logger()

OK, FAILED, UNREACHABLE = 0, 1, 3
HANDLER_GRACE: Final = 2.0
BACKLOG: Final = 1024


async def serve(configuration: Configuration, role: Role) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; whether all went well."""
    settings = configuration.settings
    app = build(configuration, role)
    progress = app[PARTS].progress
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, progress.stop.set)
    grace = settings.api_timeout_seconds + HANDLER_GRACE
    runner = web.AppRunner(app, shutdown_timeout=grace, **SERVER_OPTIONS)
    tuning = asyncio.create_task(_freeze_when_ready(progress))
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.api_host, settings.api_port, backlog=BACKLOG).start()
        log.info("listening", addresses=[f"{address[0]}:{address[1]}" for address in runner.addresses])
        await progress.stop.wait()
        progress.draining = True
        log.info("draining")
    except OSError as error:
        log.critical(
            "not_listening", port=settings.api_port, reason=error.strerror, remedy="set API_PORT to a free port"
        )
        progress.failed = True
    finally:
        tuning.cancel()
        await runner.cleanup()
    log.info("stopped")
    return not progress.failed


async def _freeze_when_ready(progress: Progress) -> None:
    """What is loaded by then stays: spare the garbage collector looking at it again and again."""
    await progress.ready.wait()
    gc.collect()
    gc.freeze()


def run_server(configuration: Configuration, role: Role) -> int:
    """The command ``serve``, or the one of a half of it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return OK if runner.run(serve(configuration, role)) else FAILED


def run_migration(settings: Settings) -> int:
    """The command ``migrate``: 0 done, 1 refused, 3 the database is out of reach."""

    async def run() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        try:
            version = await migrate(database)
        except StorageUnavailableError as error:
            log.warning("database_unavailable", reason=str(error))
            return UNREACHABLE
        except StorageError:
            log.exception("migration_failed")
            return FAILED
        finally:
            await database.close()
        log.info("schema_is_current", version=version)
        return OK

    return asyncio.run(run())
