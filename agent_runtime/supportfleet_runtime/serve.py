"""The commands ``serve``, ``gateway``, ``worker`` and ``migrate``: the application as a process.

On SIGTERM the process drains: no new connection is taken, requests that wait get their answers, then the worker
finishes what it holds, gives the rest back, and the database is closed.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

import structlog
import uvloop

from supportfleet_runtime.app import PARTS, build
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import StorageError, StorageUnavailableError
from supportfleet_runtime.gateway.server import serve_until
from supportfleet_runtime.parts import Progress
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate

log = structlog.get_logger()

OK, FAILED, UNREACHABLE = 0, 1, 3
HANDLER_GRACE: Final = 2.0


async def serve(configuration: Configuration, role: Role) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; whether all went well."""
    settings = configuration.settings
    app = build(configuration, role)
    progress = app[PARTS].progress
    grace = settings.api_timeout_seconds + HANDLER_GRACE
    tuning = asyncio.create_task(_freeze_when_ready(progress))
    try:
        listened = await serve_until(
            progress.stop, app, settings.api_host, settings.api_port, setting="API_PORT", grace=grace
        )
    finally:
        tuning.cancel()
    return listened and not progress.failed


async def _freeze_when_ready(progress: Progress) -> None:
    """What is loaded by then stays: spare the garbage collector looking at it again and again."""
    await progress.ready.wait()
    gc.collect()
    gc.freeze()


def run_server(configuration: Configuration, role: Role) -> int:
    """The command ``serve``, or the one of a half of it."""
    if configuration.settings.api_workers > 1:  # metrics, breakers and leases are a process's own
        log.warning("one_process_only", setting="API_WORKERS", remedy="set spec.replicas or spec.autoscaling instead")
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
