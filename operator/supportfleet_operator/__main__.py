"""``supportfleet-operator run``: the process around the engine.

In order: settings, logs, the connection, probes and metrics; then wait for the CRD and for the lease; then lead, with
kopf's watch feeding the engine, until a signal comes or the lease is lost. A lost lease ends the process with exit code
1, so that nothing of it goes on writing beside the new leader; the kubelet starts it again as a standby.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import uvloop

from supportfleet_operator import handlers, logs
from supportfleet_operator.api import CRD_NAME
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.connection import connect
from supportfleet_operator.cluster.lease import Elector
from supportfleet_operator.cluster.limiter import Limiter
from supportfleet_operator.cluster.prometheus import Prometheus, PrometheusClient, asking
from supportfleet_operator.cluster.resources import SUPPORT_AGENTS
from supportfleet_operator.cluster.scraper import PodScraper, Scraper, scraping
from supportfleet_operator.errors import ClusterError, LeadershipLost, SettingsError
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.reconcile.engine import Engine
from supportfleet_operator.server import Health, serving
from supportfleet_operator.settings import LEASE, Settings, read

LOG: Final = logging.getLogger("supportfleet_operator")

CRD_POLL: Final = 3.0
USAGE: Final = 2
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator; returns the exit code."""
    try:
        settings = read(sys.argv[1:] if arguments is None else arguments, os.environ)
        logs.configure(settings.log_level)
        uvloop.run(run(settings))
    except SettingsError as error:
        print(f"supportfleet-operator: {error}", file=sys.stderr)  # noqa: T201 - logs may not be set up yet
        return USAGE
    except LeadershipLost as error:
        LOG.error("leadership lost", extra={"error": str(error)})  # noqa: TRY400 - an outcome, not a bug
        return 1
    except asyncio.CancelledError:
        LOG.info("stopped")
        return 0
    except Exception:  # the edge of the process: logs are JSON to the last line
        LOG.exception("failed")
        return 1
    return 0


async def run(settings: Settings) -> None:
    """Run until a signal cancels it; leaving the contexts undoes what entering them did."""
    on_signal = _cancel_on_signal()
    metrics, health = Metrics(), Health()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connect(settings.kubeconfig))
        scraper = PodScraper(await stack.enter_async_context(scraping()))
        prometheus = PrometheusClient(await stack.enter_async_context(asking()))
        await stack.enter_async_context(serving(settings.listen, metrics, health))
        client = Client(connection, Limiter(settings.qps, settings.burst), metrics.request)
        LOG.info("started", extra={"identity": settings.identity, "server": connection.server})
        await _crd_is_served(client, health)
        health.waits_for = list
        renewal = None
        if settings.leader_election:
            elector = Elector(client, LEASE, settings.lease_namespace, settings.identity, metrics.leads)
            renewal = await stack.enter_async_context(elector.leading())
        engine = _engine(settings, client, metrics, (scraper, prometheus), health)
        watching = handlers.watch_agents(engine, connection, settings.namespaces, on_signal)
        await _lead(engine, watching, renewal)


async def _crd_is_served(client: Client, health: Health) -> None:
    """Wait for the CustomResourceDefinition: it may be installed after the operator."""
    while True:
        try:
            if await client.served(SUPPORT_AGENTS):
                return
            health.waits_for = lambda: [f"the CustomResourceDefinition {CRD_NAME}"]
            LOG.warning("the CustomResourceDefinition is not installed", extra={"crd": CRD_NAME})
        except ClusterError as error:
            LOG.warning("the API server does not answer", extra={"error": str(error)})
        await asyncio.sleep(CRD_POLL)


def _engine(
    settings: Settings, client: Client, metrics: Metrics, outside: tuple[Scraper, Prometheus], health: Health
) -> Engine:
    """The engine of the leader, with the probes asking it from now on."""
    engine = Engine(
        client,
        metrics,
        *outside,
        namespaces=settings.namespaces,
        workers=settings.workers,
        instance=settings.identity,
    )
    health.ailments = engine.ailments
    health.waits_for = lambda: [] if engine.synced else ["the first list of every watch"]
    gc.collect()
    gc.freeze()  # what start-up made lives as long as the process: no collection need look at it again
    return engine


async def _lead(engine: Engine, watch_agents: Coroutine[Any, Any, None], renewal: asyncio.Task[None] | None) -> None:
    """Reconcile until cancelled, or until a part of it ends, which it never should."""
    reconciling = asyncio.create_task(engine.run(), name="engine")
    watching = asyncio.create_task(watch_agents, name="agents")
    parts: set[asyncio.Task[Any]] = {reconciling, watching} | ({renewal} if renewal is not None else set())
    try:
        ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in ended:
            part.result()
        raise RuntimeError(f"{', '.join(sorted(part.get_name() for part in ended))} ended by itself")
    finally:
        # Writes end first, so that the lease can be released the moment this returns.
        reconciling.cancel()
        await asyncio.wait({reconciling})
        watching.cancel()
        await asyncio.wait({watching}, timeout=handlers.STOP_SECONDS)


def _cancel_on_signal() -> Callable[[], None]:
    """Have the first signal cancel this task, and a second one end the process; gives what installs that again."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - it is called from a coroutine

    def stop() -> None:
        LOG.info("stopping")
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        task.cancel()

    def install() -> None:
        for number in SIGNALS:
            loop.add_signal_handler(number, stop)

    install()
    return install


if __name__ == "__main__":
    raise SystemExit(main())
