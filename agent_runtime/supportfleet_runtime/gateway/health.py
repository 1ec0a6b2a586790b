"""``GET /v1/health``: the whole picture, for people and load balancers. It reads what is known, and asks for little."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from supportfleet_runtime.gateway.answers import HealthReport
from supportfleet_runtime.gateway.endpoints import Answer, Endpoint, json_response
from supportfleet_runtime.health.report import Observed, report


@dataclass(frozen=True)
class HealthEndpoint:
    """The endpoint. ``observe`` gathers what a report is made of."""

    observe: Callable[[], Awaitable[Observed]]

    def endpoints(self) -> list[Endpoint]:
        """The table of what is served here."""
        return [
            Endpoint(
                "GET",
                "/v1/health",
                self.get_health,
                "getHealth",
                "Tell how everything is, and why.",
                {200: Answer("Messages are answered.", HealthReport), 503: Answer("They are not.", HealthReport)},
            )
        ]

    async def get_health(self, _request: web.Request) -> web.Response:
        """How everything is: 503 where no message can be answered."""
        found = report(await self.observe())
        return json_response(found.as_json(), found.overall.http_status)
