"""What the operator serves: ``/metrics``, ``/healthz`` and ``/readyz``.

The event loop answers these itself, so a loop that is blocked answers nothing and fails the probe. ``/healthz`` is
about the process alone: it fails when a watch or a worker is stuck, and a restart would help. ``/readyz`` says whether
this replica can do its part: a standby that waits for the lease is ready, or a rollout of two replicas would never
finish.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from supportfleet_operator.metrics import Metrics

SHUTDOWN_SECONDS: Final = 2.0


@dataclass(slots=True)
class Health:
    """What the probes answer by; the parts of the process fill it in."""

    ailments: Callable[[], list[str]] = list
    """What a restart would cure."""
    waits_for: Callable[[], list[str]] = lambda: ["the API server"]
    """What this replica still waits for."""


@asynccontextmanager
async def serving(listen: tuple[str, int], metrics: Metrics, health: Health) -> AsyncIterator[int]:
    """Serve for the body; gives the port."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _answer(health.ailments())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(health.waits_for())

    app = web.Application()
    app.add_routes([web.get("/metrics", show_metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, *listen).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(trouble: list[str]) -> web.Response:
    return web.Response(text="\n".join(trouble) + "\n", status=503) if trouble else web.Response(text="ok\n")
