"""The application: what serves with all parts, and opens and closes them.

It is gateway and worker in one process, or one of them by its role. The HTTP server answers at once; what it needs is
brought up behind it (schema, then model, then worker), and /readyz says how far it is. So a database that is down at
the start is waited for, not crashed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Final

import structlog
from aiohttp import web

from supportfleet_runtime.access import parse_origins
from supportfleet_runtime.assembly import assemble
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.mirrored import Mirrored
from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.gateway.authentication import Tokens, authentication_middleware
from supportfleet_runtime.gateway.cors import Cors
from supportfleet_runtime.gateway.endpoints import Endpoint, add_endpoints, open_paths
from supportfleet_runtime.gateway.events import EventStreams, StreamLimits
from supportfleet_runtime.gateway.health import HealthEndpoint
from supportfleet_runtime.gateway.measuring import measuring_middleware
from supportfleet_runtime.gateway.openapi import Rules, openapi_endpoint
from supportfleet_runtime.gateway.problems import problem_middleware
from supportfleet_runtime.gateway.request_ids import send_request_id
from supportfleet_runtime.gateway.routes import Gateway
from supportfleet_runtime.gateway.schema import MAX_BODY
from supportfleet_runtime.gateway.tracing import tracing_middleware
from supportfleet_runtime.parts import Parts, Progress
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.migrate import migrate_patiently
from supportfleet_runtime.storage.retention import Retention
from supportfleet_runtime.watching import observer

log = structlog.get_logger()

WORKER_GRACE: Final = 5.0

PARTS: Final = web.AppKey("parts", Parts)


def build(
    configuration: Configuration, role: Role = Role.SERVE, *, now: Callable[[], datetime] = utc_now
) -> web.Application:
    """The application. Nothing is opened before it starts."""
    parts = assemble(configuration, role, now)
    streams, health = _streams(parts), _health(parts, now)
    gateway = _gateway(parts, streams, now)
    customers = [*gateway.endpoints(), *streams.endpoints()] if role.takes_messages else []
    return _application(parts, [*customers, *gateway.probes(), *health.endpoints()])


def _gateway(parts: Parts, streams: EventStreams, now: Callable[[], datetime]) -> Gateway:
    settings, live = parts.settings, parts.agent_settings
    window = lambda: live().history.max_turns  # noqa: E731 - read anew each time
    mirrored = Mirrored(parts.agent, parts.views, parts.metrics, window=window, limit=settings.queue_batch)
    return Gateway(
        limits=parts.limits,
        intake=Intake(parts.database, parts.queue, settings.scope, parts.wakeup),
        mirrored=mirrored if parts.role.works else None,
        waiters=parts.waiters,
        streams=streams,
        views=parts.views,
        metrics=parts.metrics,
        depth=parts.queue.depth,
        checks=parts.checks(),
        is_open=lambda: parts.progress.schema is None,
        limit=settings.api_timeout_seconds,
        patience=2 * settings.db_timeout,
        callbacks=settings.callbacks,
        now=now,
    )


def _streams(parts: Parts) -> EventStreams:
    settings = parts.settings
    limits = StreamLimits(settings.event_streams, settings.event_streams_per_customer)
    return EventStreams(parts.updates, parts.watching, parts.drafts, limits)


def _health(parts: Parts, now: Callable[[], datetime]) -> HealthEndpoint:
    return HealthEndpoint(
        observer(
            parts.settings,
            checks=parts.checks(),
            monitor=parts.monitor,
            depth=parts.queue.depth,
            window=parts.window,
            metrics=parts.metrics,
            now=now,
            works=parts.role.works,
        )
    )


def _application(parts: Parts, endpoints: Sequence[Endpoint]) -> web.Application:
    keys, tokens = parts.settings.keys, _tokens(parts.settings)
    rules = Rules(keys=bool(keys), tokens=tokens is not None, limited=parts.settings.rate_limit > 0)
    table = [*endpoints, openapi_endpoint(endpoints, rules)]
    authentication = authentication_middleware(keys, tokens, open_paths=open_paths(table))
    cors = Cors(origins) if (origins := parse_origins(parts.settings.cors_origins)) else None
    app = web.Application(
        middlewares=[
            *([tracing_middleware(parts.telemetry.tracer)] if parts.telemetry.traces else []),
            measuring_middleware(parts.metrics, parts.window),
            problem_middleware,
            *([cors.middleware] if cors else []),
            *([authentication] if keys or tokens else []),
        ],
        client_max_size=MAX_BODY,
    )
    app[PARTS] = parts
    add_endpoints(app, table)
    app.on_response_prepare.extend((send_request_id, parts.limits.tell, *([cors.tell] if cors else [])))
    app.on_shutdown.append(_start_draining)
    app.cleanup_ctx.append(lifetime)
    app.on_cleanup.append(parts.limits.close)
    return app


def _tokens(settings: Settings) -> Tokens | None:
    """What verifies tokens, where they are configured."""
    if settings.token_rules is None:
        return None
    from supportfleet_runtime.gateway.tokens import TokenVerifier  # noqa: PLC0415 - it brings cryptography

    return TokenVerifier(settings.token_rules)


async def _start_draining(app: web.Application) -> None:
    app[PARTS].progress.draining = True
    app[PARTS].watching.close()


async def lifetime(app: web.Application) -> AsyncIterator[None]:
    """Run what works behind the gateway, for as long as it serves."""
    parts = app[PARTS]
    background = [
        asyncio.create_task(bring_up(parts)),
        asyncio.create_task(parts.queue.run()),
        *([asyncio.create_task(parts.model_source.run())] if parts.role.works else []),
        asyncio.create_task(parts.agent_settings.follow(parts.settings.config_file, parts.settings.config_dir)),
        asyncio.create_task(parts.waiters.run()),
        asyncio.create_task(parts.watching.run()),
        asyncio.create_task(parts.monitor.run()),
        asyncio.create_task(parts.telemetry.run()),
        asyncio.create_task(parts.memory.run()),
        asyncio.create_task(_retain(parts)),
        asyncio.create_task(signals.listen(parts.database.url, parts.database.timeout, _hearing(parts))),
    ]
    for task in background:
        task.add_done_callback(lambda task: _must_not_fail(task, parts.progress))
    yield
    try:
        await asyncio.gather(
            parts.worker.stop(WORKER_GRACE), parts.long_worker.stop(WORKER_GRACE), parts.caller.stop(WORKER_GRACE)
        )
    except StorageError as error:
        log.warning("leases_not_released", reason=str(error))  # they run out
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await parts.telemetry.close()
    await parts.ladder.close()
    await parts.tools.close()
    await parts.memory.close()
    await parts.queue.close()
    await parts.database.close()


async def _retain(parts: Parts) -> None:
    """Remove what is older than it may get, where there is such a limit."""
    days = parts.settings.retention_days
    if days is not None:
        await parts.progress.ready.wait()
        database, scope = parts.database, parts.settings.scope
        await Retention(database, scope, days, now=utc_now, forget=parts.memory.forget).run()


async def bring_up(parts: Parts) -> None:
    """Schema, model, worker: each once what it needs is there."""
    await migrate_patiently(parts.database, parts.progress.tell_schema)
    if parts.role.works:
        await parts.model.loaded.wait()
        parts.progress.worker = None
    names = {"queue": parts.queue.name, "database": parts.database.kind.value}
    log.info("ready", role=parts.role.value, scope=parts.settings.scope, **names)
    parts.progress.ready.set()
    if parts.role.works:
        await asyncio.gather(parts.worker.run(), parts.long_worker.run(), parts.caller.run())


def _hearing(parts: Parts) -> Callable[[str, str], None]:
    """What is done about other processes' signals."""

    def hear(kind: str, subject: str) -> None:
        if kind == signals.WORK and subject == parts.queue.name:
            parts.wakeup.notify()
        elif kind == signals.DONE:
            parts.waiters.hear(frozenset(subject.split(",")))
        else:
            parts.watching.hear(kind, subject)

    return hear


def _must_not_fail(task: asyncio.Task[None], progress: Progress) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("background_task_failed", exc_info=task.exception())
        progress.failed = True
        progress.stop.set()
