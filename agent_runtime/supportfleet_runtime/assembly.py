"""The parts of an application, made of its configuration and wired to each other. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.ladder import Ladder
from supportfleet_runtime.agent.live_settings import LiveSettings
from supportfleet_runtime.agent.model import IntentModel, ModelLoader
from supportfleet_runtime.agent.pricing import Spending
from supportfleet_runtime.callbacks.caller import Caller
from supportfleet_runtime.config import Configuration, Settings
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.drafts import Drafts
from supportfleet_runtime.conversations.history import Histories
from supportfleet_runtime.conversations.long_answering import LongAnswering
from supportfleet_runtime.conversations.memory import Memory
from supportfleet_runtime.conversations.turns import Turns
from supportfleet_runtime.conversations.updates import Updates
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.gateway.schema import task_json
from supportfleet_runtime.health.monitor import Monitor
from supportfleet_runtime.language_models import make_ladder
from supportfleet_runtime.limits import make_limits
from supportfleet_runtime.memories import make_memory
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.parts import ModelSource, Parts
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.long_lane import LongLane
from supportfleet_runtime.queue.port import Leases, Queue
from supportfleet_runtime.queue.settings import queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.telemetry import Telemetry, make_telemetry
from supportfleet_runtime.tools.factory import make_tools
from supportfleet_runtime.watching import dependencies

LEASE_SECONDS: Final = 30.0

Now = Callable[[], datetime]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the other parts stand on."""

    settings: Settings
    live: LiveSettings
    metrics: Metrics
    telemetry: Telemetry
    database: Database
    queue: Queue
    wakeup: Wakeup
    waiters: Waiters
    views: Views
    updates: Updates
    watching: Watching
    drafts: Drafts
    memory: Memory
    now: Now
    lease: float
    """Seconds for which a worker holds what it took, without a sign of life."""

    def turns(self, queue: Leases, long_lane: LongLane | None = None, *, late: bool = False) -> Turns:
        """The turns of conversations that a queue holds."""
        return Turns(
            self.database,
            queue,
            self.waiters,
            scope=self.settings.scope,
            window=lambda: self.live().history.max_turns,
            now=self.now,
            long_lane=long_lane,
            late=late,
            watching=self.watching,
            memory=None if late else self.memory,
        )


def assemble(configuration: Configuration, role: Role, now: Now) -> Parts:
    """All parts."""
    ground = _ground(configuration, now)
    settings, metrics, live = ground.settings, ground.metrics, ground.live
    model = IntentModel(metrics)
    ladder = make_ladder(settings, metrics, Spending(metrics, lambda: live().prices)) if role.works else Ladder([])
    tools = make_tools(settings, ground.database, live, metrics, now)
    agent = Agent(live, lambda: model.classifier, ladder, metrics, now, toolbox=tools)
    worker, long_worker, caller = _workers(ground, agent)
    return Parts(
        role=role,
        settings=settings,
        metrics=metrics,
        telemetry=ground.telemetry,
        database=ground.database,
        queue=ground.queue,
        wakeup=ground.wakeup,
        views=ground.views,
        waiters=ground.waiters,
        updates=ground.updates,
        watching=ground.watching,
        drafts=ground.drafts,
        memory=ground.memory,
        limits=make_limits(settings),
        agent_settings=live,
        model=model,
        model_source=_model_source(configuration, model, metrics),
        ladder=ladder,
        tools=tools,
        agent=agent,
        worker=worker,
        long_worker=long_worker,
        caller=caller,
        monitor=Monitor(dependencies(settings, ground.database, ground.queue, metrics), metrics, now),
    )


def _ground(configuration: Configuration, now: Now) -> Ground:
    settings, metrics, wakeup = configuration.settings, Metrics(), Wakeup()
    database = Database(database_url(settings), pool=settings.db_pool, timeout=settings.db_timeout)
    address = settings.queue_url.get_secret_value() if settings.queue_url else None
    lease = min(LEASE_SECONDS, settings.queue_visibility)
    queue = make_queue(
        database,
        settings.queue,
        scope=settings.scope,
        address=queue_address(settings.queue_type, address),
        consumer=settings.pod_name,
        lease=lease,
        wakeup=wakeup,
        now=now,
    )
    views, updates = Views(database, settings.scope), Updates(database, settings.scope)
    watching = Watching(database, updates.marks)
    return Ground(
        settings=settings,
        live=LiveSettings(configuration.agent),
        metrics=metrics,
        telemetry=make_telemetry(configuration, metrics, queue.depth),
        database=database,
        queue=queue,
        wakeup=wakeup,
        waiters=Waiters(views.replies),
        views=views,
        updates=updates,
        watching=watching,
        drafts=Drafts(watching.nudge),
        memory=make_memory(settings),
        now=now,
        lease=lease,
    )


def _workers(ground: Ground, agent: Agent) -> tuple[Worker, Worker, Caller]:
    """Who answers, who does what takes long, and who tells that it is done."""
    settings = ground.settings
    long_lane = LongLane(ground.database, settings.queue, scope=settings.scope, lease=ground.lease, now=ground.now)
    long_bell, call_bell = Wakeup(), Wakeup()
    turns = ground.turns(ground.queue, long_lane)
    answering = Answering(agent, turns, ground.wakeup, ground.metrics, long_bell, drafts=ground.drafts)
    worker = Worker(
        queue=ground.queue,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=ground.wakeup,
        settings=WorkerSettings(
            settings.queue_batch, settings.queue_visibility, ground.lease, settings.queue_max_tries
        ),
        metrics=ground.metrics,
        tracer=ground.telemetry.tracer,
    )
    return worker, _long_worker(ground, agent, long_lane, long_bell, call_bell), _caller(ground, call_bell)


def _long_worker(ground: Ground, agent: Agent, lane: LongLane, bell: Wakeup, ended: Wakeup) -> Worker:
    settings = ground.settings
    histories = Histories(ground.database, settings.scope, lambda: ground.live().order_book, now=ground.now)
    works = {"detailed_history": histories.detailed_history}
    turns = ground.turns(lane, late=True)
    answering = LongAnswering(
        agent,
        turns,
        lane,
        works=works,
        ended=ended,
        metrics=ground.metrics,
        watching=ground.watching,
        drafts=ground.drafts,
    )
    return Worker(
        queue=lane,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=bell,
        settings=WorkerSettings(
            settings.long_tasks, settings.long_task_seconds, ground.lease, settings.queue_max_tries
        ),
        metrics=ground.metrics,
        tracer=ground.telemetry.tracer,
    )


def _caller(ground: Ground, bell: Wakeup) -> Caller:
    settings = ground.settings
    return Caller(
        settings.callbacks,
        ground.database,
        settings.scope,
        ground.views,
        render=task_json,
        company=lambda: ground.live().company,
        bell=bell,
        lease=ground.lease,
        metrics=ground.metrics,
        now=ground.now,
    )


def _model_source(configuration: Configuration, model: IntentModel, metrics: Metrics) -> ModelSource:
    """What brings the model: a file that is followed, or the one that stays."""
    settings = configuration.settings
    if settings.model_file is None:
        return ModelLoader(model, settings.model_dir, settings.model_digest)
    from supportfleet_runtime.agent.reload import ModelFollower  # noqa: PLC0415 - it brings the object store's client

    return ModelFollower(model, metrics, settings.model_file, configuration.environ)
