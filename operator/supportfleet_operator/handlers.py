"""The operator's connection to kopf, and the only module that knows it.

kopf runs the process (signals, an orderly stop) and watches SupportAgents; each of its events only wakes our own queue.
Nothing else of kopf is used: no create, update, resume or delete handlers, timers or daemons, since those are
edge-triggered and keep their state in annotations and finalizers. So kopf never writes to a SupportAgent: with no such
handler it has nothing to store, and our handlers return nothing for it to put into the status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import kopf

from supportfleet_operator.api import GROUP, PLURAL, VERSION
from supportfleet_operator.cluster.connection import Connection
from supportfleet_operator.reconcile.engine import Engine

EVENT_WORKERS: Final = 100
"""kopf's workers only pass events on. They linger for ``idle_timeout``, so many short ones beat few long ones."""
IDLE_SECONDS: Final = 0.2
PAGE: Final = 500
STOP_SECONDS: Final = 20.0


def registry_for(engine: Engine, connection: Connection) -> kopf.OperatorRegistry:
    """The handlers, bound to an engine."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        apply_settings(settings)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await credentials(connection)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def agent(event: kopf.RawEvent, **_: Any) -> None:
        raw: Any = event["object"]
        if event["type"] == "DELETED":
            engine.agent_deleted(raw)
        else:
            engine.agent_changed(raw)

    return registry


def apply_settings(settings: kopf.OperatorSettings) -> None:
    """Everything of kopf that writes or scans is off, and what is left is bounded."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    # Watching CRDs and namespaces would cost cluster-wide rights; we wait for our own CRD before kopf starts.
    settings.scanning.disabled = True
    settings.watching.chunk_size = PAGE
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = EVENT_WORKERS
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.process.ultimate_exiting_timeout = STOP_SECONDS


async def credentials(connection: Connection) -> kopf.ConnectionInfo:
    """Our own connection's, read again whenever kopf is refused."""
    configuration = connection.configuration
    scheme, _, token = (await connection.headers()).get("Authorization", "").partition(" ")
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme or None,
        token=token or None,
        proxy_url=configuration.proxy,
    )


async def watch_agents(
    engine: Engine, connection: Connection, namespaces: Sequence[str], on_started: Callable[[], None]
) -> None:
    """Feed the engine with SupportAgents until cancelled.

    kopf takes the process's signals when it starts, which ``on_started`` takes back: our own order of stopping holds.
    """
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry_for(engine, connection),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        standalone=True,
    )
    on_started()
    await kopf.run_tasks(tasks, ignored=ours)
