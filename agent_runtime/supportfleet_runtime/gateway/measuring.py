"""Counting messages with the status they end in, whoever decided it, and how long they took."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from supportfleet_runtime.gateway.problems import Handler
from supportfleet_runtime.health.window import SlidingWindow
from supportfleet_runtime.observability.metrics import NO_INTENT, Metrics

MESSAGES: Final = "/v1/messages"
INTENT: Final = web.RequestKey("intent", str)
"""Set by the handler once the intent is known."""
TOOK: Final = web.RequestKey("took", float)
"""Set by a handler whose response goes on after the message's answer: how long that took."""


def measuring_middleware(metrics: Metrics, window: SlidingWindow) -> Middleware:
    """Outermost, so that it sees the response as the caller does."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        response = await handler(request)
        if request.path == MESSAGES:
            window.record(response.status, request.get(TOOK, time.perf_counter() - started))
            metrics.count_request(response.status, request.get(INTENT, NO_INTENT))
        return response

    return measure
