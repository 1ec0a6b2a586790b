"""What the health loop looks at, as it is configured, and what a health report is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path

from supportfleet_runtime.agent.breaker import State
from supportfleet_runtime.config import Settings
from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.health.checks import broker_check, disk_check, http_check, model_api_check, redis_check
from supportfleet_runtime.health.monitor import OFTEN, SELDOM, Dependency, Monitor
from supportfleet_runtime.health.readiness import CHECK_SECONDS, Check, check, database_check
from supportfleet_runtime.health.report import CLAUDE, DATABASE, Observed
from supportfleet_runtime.health.window import SlidingWindow
from supportfleet_runtime.language_models import SERVICE
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.port import Queue
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import DatabaseKind
from supportfleet_runtime.version import program_version


def dependencies(settings: Settings, database: Database, queue: Queue, metrics: Metrics) -> list[Dependency]:
    """Everything outside the process that it needs."""
    found = [Dependency(DATABASE, database_check(database), OFTEN)]
    key = settings.anthropic_api_key
    if settings.uses_claude and key is not None:
        asked = model_api_check(settings.anthropic_base_url, key.get_secret_value(), lambda: breaker(metrics, SERVICE))
        found.append(Dependency(CLAUDE, asked, OFTEN))
    if isinstance(queue, BrokeredQueue):
        found.append(Dependency("queue_broker", broker_check(lambda: queue.problem), SELDOM))
    if settings.redis_url is not None:
        found.append(Dependency("redis", redis_check(settings.redis_url.get_secret_value()), SELDOM))
    if settings.tools_url is not None:
        found.append(Dependency("tools", http_check(f"{settings.tools_url.rstrip('/')}/readyz"), SELDOM))
    if database.kind is DatabaseKind.SQLITE:
        found.append(Dependency("disk", disk_check(Path(database.url.target).absolute().parent), SELDOM))
    return found


def breaker(metrics: Metrics, dependency: str) -> State:
    """A breaker's state, as its metric shows it; one that there is not is closed."""
    return State(metrics.breakers().get(dependency, State.CLOSED))


def observer(
    settings: Settings,
    *,
    checks: Mapping[str, Check],
    monitor: Monitor,
    depth: Callable[[], Awaitable[int]],
    window: SlidingWindow,
    metrics: Metrics,
    now: Callable[[], datetime],
    works: bool = True,
) -> Callable[[], Awaitable[Observed]]:
    """What gathers a report's facts."""

    async def observe() -> Observed:
        readiness, queued = await asyncio.gather(check(checks), _known(depth))
        return Observed(
            version=program_version(),
            revision=settings.agent_revision,
            pod=settings.pod_name,
            at=now(),
            readiness=readiness,
            dependencies=monitor.states,
            depth=queued,
            figures=window.figures(),
            works=works,
            breakers={name: State(state).name.lower() for name, state in sorted(metrics.breakers().items())},
        )

    return observe


async def _known(depth: Callable[[], Awaitable[int]]) -> int | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await depth()
    except (StorageError, TimeoutError):
        return None
