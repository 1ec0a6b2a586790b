"""The command ``tools``: the tool service as a process. On SIGTERM it ends what it began, and takes nothing new."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Final

import uvloop

from supportfleet_runtime import config
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.config import Configuration
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.gateway.server import serve_until
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.tools.service import build_tool_service

OK, FAILED = 0, 1
GRACE_SECONDS: Final = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none: the environment says it all."""
    parser.description = "Run the tool service on TOOLS_PORT, for agents that send TOOLS_API_KEY."


def run(_arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    configuration = config.load(os.environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return OK if runner.run(_serve(configuration)) else FAILED


async def _serve(configuration: Configuration) -> bool:
    settings = configuration.settings
    database = Database(database_url(settings), pool=settings.db_pool, timeout=settings.db_timeout)
    app = build_tool_service(configuration, database, now=utc_now)
    grace = settings.tools_timeout + GRACE_SECONDS
    return await serve_until(
        asyncio.Event(), app, settings.api_host, settings.tools_port, setting="TOOLS_PORT", grace=grace
    )
