"""What an application is made of: ``assembly`` makes it, ``app`` serves with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.ladder import Ladder
from supportfleet_runtime.agent.live_settings import LiveSettings
from supportfleet_runtime.agent.model import IntentModel
from supportfleet_runtime.callbacks.caller import Caller
from supportfleet_runtime.config import Settings
from supportfleet_runtime.conversations.drafts import Drafts
from supportfleet_runtime.conversations.memory import Memory
from supportfleet_runtime.conversations.updates import Updates
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.gateway.limiting import Limits
from supportfleet_runtime.health import Check, database_check
from supportfleet_runtime.health.monitor import Monitor
from supportfleet_runtime.health.window import SlidingWindow
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.port import Queue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import NOT_CHECKED
from supportfleet_runtime.telemetry import Telemetry
from supportfleet_runtime.tools.toolbox import Tools


@dataclass
class Progress:
    """How far the process has come up."""

    schema: str | None = NOT_CHECKED
    worker: str | None = "the worker has not started yet"
    draining: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    """Whether a background task ended by itself: a bug, and a restart cures what it can."""

    def tell_schema(self, problem: str | None) -> None:
        """What is wrong with the schema, or nothing any more."""
        self.schema = problem


class ModelSource(Protocol):
    """What brings the intent model: once, or whenever another is wanted."""

    async def run(self) -> None:
        """Do so until there is no more to do."""
        ...


@dataclass(kw_only=True)
class Parts:
    """All of them; nothing is open before the application starts."""

    role: Role
    settings: Settings
    metrics: Metrics
    telemetry: Telemetry
    database: Database
    queue: Queue
    wakeup: Wakeup
    views: Views
    waiters: Waiters
    updates: Updates
    watching: Watching
    drafts: Drafts
    memory: Memory
    limits: Limits
    agent_settings: LiveSettings
    model: IntentModel
    model_source: ModelSource
    ladder: Ladder
    tools: Tools
    agent: Agent
    worker: Worker
    long_worker: Worker
    caller: Caller
    monitor: Monitor
    window: SlidingWindow = field(default_factory=SlidingWindow)
    progress: Progress = field(default_factory=Progress)

    def checks(self) -> dict[str, Check]:
        """What must be right before customers are sent here."""
        progress = self.progress
        working = {"model": _check(lambda: self.model.problem), "worker": _check(lambda: progress.worker)}
        return {
            "database": database_check(self.database),
            "schema": _check(lambda: progress.schema),
            **(working if self.role.works else {}),
            "draining": _check(lambda: "the process is stopping" if progress.draining else None),
        }


def _check(problem: Callable[[], str | None]) -> Check:
    async def run() -> str | None:
        return problem()

    return run
