"""The application: every part wired, opened and closed here.

It is gateway and worker in one process. The HTTP server answers at once; what it needs is brought up behind it
(schema, then model, then worker), and /readyz says how far it is. So a database that is down at the start is waited
for, not crashed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Protocol

import structlog
from aiohttp import web

from supportfleet_runtime.access import parse_origins
from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.ladder import Ladder
from supportfleet_runtime.agent.live_settings import LiveSettings
from supportfleet_runtime.agent.model import IntentModel, ModelLoader
from supportfleet_runtime.agent.pricing import Spending
from supportfleet_runtime.callbacks.caller import Caller, make_caller
from supportfleet_runtime.config import Configuration, Settings, default_database_path
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.history import Histories
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.long_answering import LongAnswering
from supportfleet_runtime.conversations.memory import Memory
from supportfleet_runtime.conversations.mirrored import Mirrored
from supportfleet_runtime.conversations.turns import Turns
from supportfleet_runtime.conversations.updates import Updates
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.gateway.authentication import Tokens, authentication_middleware
from supportfleet_runtime.gateway.cors import Cors
from supportfleet_runtime.gateway.endpoints import Endpoint, add_endpoints, open_paths
from supportfleet_runtime.gateway.events import EventStreams, StreamLimits
from supportfleet_runtime.gateway.health import HealthEndpoint
from supportfleet_runtime.gateway.limiting import Limits
from supportfleet_runtime.gateway.measuring import measuring_middleware
from supportfleet_runtime.gateway.openapi import Rules, openapi_endpoint
from supportfleet_runtime.gateway.problems import problem_middleware
from supportfleet_runtime.gateway.request_ids import send_request_id
from supportfleet_runtime.gateway.routes import Gateway
from supportfleet_runtime.gateway.schema import MAX_BODY, task_json
from supportfleet_runtime.gateway.tracing import tracing_middleware
from supportfleet_runtime.health import Check, database_check
from supportfleet_runtime.health.monitor import Monitor
from supportfleet_runtime.health.window import SlidingWindow
from supportfleet_runtime.language_models import make_ladder
from supportfleet_runtime.limits import make_limits
from supportfleet_runtime.memories import make_memory
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.long_lane import LongLane
from supportfleet_runtime.queue.port import Queue
from supportfleet_runtime.queue.settings import queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.retention import Retention
from supportfleet_runtime.storage.url import DatabaseKind, DatabaseUrl, parse_database_url
from supportfleet_runtime.telemetry import Telemetry, make_telemetry
from supportfleet_runtime.tools.factory import make_tools
from supportfleet_runtime.tools.toolbox import Tools
from supportfleet_runtime.watching import dependencies, observer

log = structlog.get_logger()

LEASE_SECONDS: Final = 30.0
MIGRATION_PAUSE: Final = 2.0
WORKER_GRACE: Final = 5.0


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


@dataclass
class Progress:
    """How far the process has come up."""

    schema: str | None = "the database's schema is not checked yet"
    worker: str | None = "the worker has not started yet"
    draining: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    """Whether a background task ended by itself: a bug, and a restart cures what it can."""


class ModelSource(Protocol):
    """What brings the intent model: once, or whenever another is wanted."""

    async def run(self) -> None:
        """Do so until there is no more to do."""
        ...


@dataclass
class Parts:
    """What an application is made of; ``build`` makes it, ``lifetime`` opens and closes it."""

    settings: Settings
    database: Database
    queue: Queue
    wakeup: Wakeup
    waiters: Waiters
    model: IntentModel
    model_source: ModelSource
    agent_settings: LiveSettings
    ladder: Ladder
    worker: Worker
    long_worker: Worker
    caller: Caller
    watching: Watching
    memory: Memory
    metrics: Metrics
    monitor: Monitor
    tools: Tools
    window: SlidingWindow = field(default_factory=SlidingWindow)
    telemetry: Telemetry = field(default_factory=Telemetry)
    progress: Progress = field(default_factory=Progress)


PARTS: Final = web.AppKey("parts", Parts)
SERVER_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "access_log": None,  # a line for each message is logged anyway
        "auto_decompress": False,  # no body is worth unpacking a bomb
        "keepalive_timeout": 75.0,  # for the next request's whole head, too: however slowly it drips in
        "max_line_size": 8190,
        "max_field_size": 8190,
        "max_headers": 128,
    }
)
"""How the application is served."""


def build(configuration: Configuration, *, now: Callable[[], datetime] = utc_now) -> web.Application:
    """The application. Nothing is opened before it starts."""
    settings = configuration.settings
    metrics = Metrics()
    database = Database(database_url(settings), pool=settings.db_pool, timeout=settings.db_timeout)
    lease = min(LEASE_SECONDS, settings.queue_visibility)
    wakeup = Wakeup()
    queue = make_queue(
        database,
        settings.queue,
        scope=settings.scope,
        address=queue_address(
            settings.queue_type, settings.queue_url.get_secret_value() if settings.queue_url else None
        ),
        consumer=settings.pod_name,
        lease=lease,
        wakeup=wakeup,
        now=now,
    )
    telemetry = make_telemetry(configuration, metrics, queue.depth)
    views = Views(database, settings.scope)
    waiters = Waiters(views.replies)
    model = IntentModel(metrics)
    live = LiveSettings(configuration.agent)
    ladder = make_ladder(settings, metrics, Spending(metrics, lambda: live().prices))
    tools = make_tools(settings, database, live, metrics, now)
    agent = Agent(live, lambda: model.classifier, ladder, metrics, now, toolbox=tools)
    updates = Updates(database, settings.scope)
    watching = Watching(database, updates.marks)
    long_lane = LongLane(database, settings.queue, scope=settings.scope, lease=lease, now=now)
    memory = make_memory(settings)
    turns = Turns(
        database,
        queue,
        waiters,
        scope=settings.scope,
        window=lambda: live().history.max_turns,
        now=now,
        long_lane=long_lane,
        watching=watching,
        memory=memory,
    )
    long_bell = Wakeup()
    answering = Answering(agent, turns, wakeup, metrics, long_bell)
    worker = Worker(
        queue=queue,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=wakeup,
        settings=WorkerSettings(settings.queue_batch, settings.queue_visibility, lease, settings.queue_max_tries),
        metrics=metrics,
        tracer=telemetry.tracer,
    )
    late = Turns(
        database,
        long_lane,
        waiters,
        scope=settings.scope,
        window=lambda: live().history.max_turns,
        now=now,
        late=True,
        watching=watching,
    )
    call_bell = Wakeup()
    caller = make_caller(
        settings.callbacks,
        database,
        settings.scope,
        views,
        render=task_json,
        company=lambda: live().company,
        bell=call_bell,
        lease=lease,
        metrics=metrics,
        now=now,
    )
    histories = Histories(database, settings.scope, lambda: live().order_book, now=now)
    works = {"detailed_history": histories.detailed_history}
    long_answering = LongAnswering(
        agent, late, long_lane, works=works, ended=call_bell, metrics=metrics, watching=watching
    )
    long_worker = Worker(
        queue=long_lane,
        handle=long_answering.handle,
        give_up=long_answering.give_up,
        wakeup=long_bell,
        settings=WorkerSettings(settings.long_tasks, settings.long_task_seconds, lease, settings.queue_max_tries),
        metrics=metrics,
        tracer=telemetry.tracer,
    )
    source = model_source(configuration, model, metrics)
    monitor = Monitor(dependencies(settings, database, queue, metrics), metrics, now)
    parts = Parts(
        settings,
        database,
        queue,
        wakeup,
        waiters,
        model,
        source,
        live,
        ladder,
        worker,
        long_worker,
        caller,
        watching,
        memory,
        metrics,
        monitor,
        tools,
    )
    parts.telemetry = telemetry
    limits = make_limits(settings)
    gateway = Gateway(
        limits=limits,
        intake=Intake(database, queue, settings.scope, wakeup),
        mirrored=Mirrored(agent, views, metrics, window=lambda: live().history.max_turns, limit=settings.queue_batch),
        waiters=waiters,
        views=views,
        metrics=metrics,
        depth=queue.depth,
        checks=checks(parts),
        is_open=lambda: parts.progress.schema is None,
        limit=settings.api_timeout_seconds,
        patience=2 * settings.db_timeout,
        callbacks=settings.callbacks,
        now=now,
    )
    streams = EventStreams(updates, watching, StreamLimits(settings.event_streams, settings.event_streams_per_customer))
    health = HealthEndpoint(
        observer(
            settings,
            checks=gateway.checks,
            monitor=monitor,
            depth=queue.depth,
            window=parts.window,
            metrics=metrics,
            now=now,
        )
    )
    return _application(parts, [*gateway.endpoints(), *health.endpoints(), *streams.endpoints()], limits)


def database_url(settings: Settings) -> DatabaseUrl:
    """The database that is configured, or a file where one can be written."""
    if settings.database_url is not None:
        return parse_database_url(settings.database_url.get_secret_value())
    path, lasting = default_database_path()
    if lasting:
        log.info("database_defaulted", path=str(path))
    else:
        log.warning("database_is_temporary", path=str(path), remedy="set DATABASE_URL, or give it a writable folder")
    return DatabaseUrl(DatabaseKind.SQLITE, str(path))


def model_source(configuration: Configuration, model: IntentModel, metrics: Metrics) -> ModelSource:
    """What brings the model: a file that is followed, or the one that stays."""
    settings = configuration.settings
    if settings.model_file is None:
        return ModelLoader(model, settings.model_dir, settings.model_digest)
    from supportfleet_runtime.agent.reload import ModelFollower  # noqa: PLC0415 - it brings the object store's client

    return ModelFollower(model, metrics, settings.model_file, configuration.environ)


def checks(parts: Parts) -> dict[str, Check]:
    """What must be right before customers are sent here."""

    def of(problem: Callable[[], str | None]) -> Check:
        async def run() -> str | None:
            return problem()

        return run

    progress = parts.progress
    return {
        "database": database_check(parts.database),
        "schema": of(lambda: progress.schema),
        "model": of(lambda: parts.model.problem),
        "worker": of(lambda: progress.worker),
        "draining": of(lambda: "the process is stopping" if progress.draining else None),
    }


def _application(parts: Parts, endpoints: Sequence[Endpoint], limits: Limits) -> web.Application:
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
    app.on_response_prepare.extend((send_request_id, limits.tell, *([cors.tell] if cors else [])))
    app.on_shutdown.append(_start_draining)
    app.cleanup_ctx.append(lifetime)
    app.on_cleanup.append(limits.close)
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
        asyncio.create_task(parts.model_source.run()),
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
    await _migrate(parts)
    await parts.model.loaded.wait()
    parts.progress.worker = None
    log.info("ready", scope=parts.settings.scope, queue=parts.queue.name, database=parts.database.kind.value)
    parts.progress.ready.set()
    await asyncio.gather(parts.worker.run(), parts.long_worker.run(), parts.caller.run())


async def _migrate(parts: Parts) -> None:
    while parts.progress.schema is not None:
        try:
            await migrate(parts.database)
            parts.progress.schema = None
        except StorageError as error:
            parts.progress.schema = str(error)
            log.warning("schema_not_ready", exc_info=error)
            await asyncio.sleep(MIGRATION_PAUSE)


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
