"""``GET /v1/health``: the whole picture, for people and load balancers. It reads what is known, and asks for little."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from aiohttp import web

from supportfleet_runtime.health.report import Observed, report


@dataclass(frozen=True)
class HealthEndpoint:
    """The endpoint. ``observe`` gathers what a report is made of."""

    observe: Callable[[], Awaitable[Observed]]

    def add_routes(self, app: web.Application) -> None:
        """Serve it with ``app``."""
        app.router.add_get("/v1/health", self.get_health)

    async def get_health(self, _request: web.Request) -> web.Response:
        """How everything is: 503 where no message can be answered."""
        found = report(await self.observe())
        body = orjson.dumps(found.as_json())
        return web.Response(body=body, status=found.overall.http_status, content_type="application/json")
