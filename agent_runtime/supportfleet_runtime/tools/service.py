"""The tool service as an application: opened and closed here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from supportfleet_runtime.access import parse_api_keys
from supportfleet_runtime.agent.live_settings import LiveSettings
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.errors import ConfigurationError, Problem
from supportfleet_runtime.gateway.authentication import authentication_middleware
from supportfleet_runtime.gateway.problems import problem_middleware
from supportfleet_runtime.health import Check, database_check
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import NOT_CHECKED, migrate_patiently
from supportfleet_runtime.tools.desk import ToolDesk
from supportfleet_runtime.tools.server import MAX_BODY, ToolService

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass
class Parts:
    """What the service is made of."""

    settings: Settings
    database: Database
    live: LiveSettings
    schema: str | None = NOT_CHECKED

    def tell_schema(self, problem: str | None) -> None:
        """What is wrong with the schema, or nothing any more."""
        self.schema = problem


PARTS: Final = web.AppKey("tools_parts", Parts)


def build_tool_service(
    configuration: Configuration, database: Database, *, now: Callable[[], datetime]
) -> web.Application:
    """The application, which closes the database when it ends. Raises ``ConfigurationError`` without a key."""
    settings = configuration.settings
    if settings.tools_api_key is None:
        problem = Problem("TOOLS_API_KEY", "the tool service needs it and it is not set", "set it, here and for agents")
        raise ConfigurationError([problem])
    keys = parse_api_keys(settings.tools_api_key.get_secret_value())
    parts = Parts(settings, database, LiveSettings(configuration.agent))
    service = ToolService(
        ToolDesk(database, parts.live, settings.scope, now),
        Metrics(),
        {"database": database_check(database), "schema": _schema_check(parts)},
        settings.tools_timeout,
    )
    app = web.Application(
        middlewares=[problem_middleware, authentication_middleware(keys, None, open_paths=OPEN_PATHS)],
        client_max_size=MAX_BODY,
    )
    app[PARTS] = parts
    service.add_routes(app)
    app.cleanup_ctx.append(_lifetime)
    return app


def _schema_check(parts: Parts) -> Check:
    async def run() -> str | None:
        return parts.schema

    return run


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    """Bring the schema up to date, and follow the configuration, for as long as it serves."""
    parts = app[PARTS]
    following = parts.live.follow(parts.settings.config_file, parts.settings.config_dir)
    background = [
        asyncio.create_task(migrate_patiently(parts.database, parts.tell_schema)),
        asyncio.create_task(following),
    ]
    yield
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await parts.database.close()
