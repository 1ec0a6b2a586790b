"""The health loop: looks at each dependency again and again, and says since when it is well or not.

::

    unknown ---- one success ----> healthy ---- 2 failures in a row ----> unhealthy
       |                              ^                                      |  ^
       |                              +------------ one success -------------+  |
       +----------------------- 2 failures in a row ---------------------------+

Each dependency has a loop of its own: one that hangs delays no other, and no check of it begins before the last has
ended. Intervals are spread a little, so that a fleet's pods don't all ask at once. Nothing is restarted or cut off for
being unhealthy: the breakers guard the calls, readiness guards the pod; this tells people.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.health.readiness import Check
from supportfleet_runtime.observability.metrics import Metrics

log = structlog.get_logger()

OFTEN: Final = 10.0
"""Seconds between checks of what every message needs: the model API and the database."""
SELDOM: Final = 30.0
"""Seconds between checks of the rest."""
FAILURES: Final = 2
"""Failures in a row that make a dependency unhealthy."""
CHECK_SECONDS: Final = 5.0
SPREAD: Final = 0.1


@dataclass(frozen=True)
class Dependency:
    """Something outside the process, and how it is looked at."""

    name: str
    check: Check
    every: float
    timeout: float = CHECK_SECONDS


@dataclass(frozen=True)
class State:
    """What is known of a dependency. ``problem`` is the last check's; ``since`` is when ``healthy`` last changed."""

    healthy: bool | None = None
    failures: int = 0
    problem: str | None = None
    checked_at: datetime | None = None
    since: datetime | None = None


def after(state: State, problem: str | None, now: datetime) -> State:
    """The state after a check that found ``problem``, or nothing wrong. Pure."""
    failures = state.failures + 1 if problem else 0
    healthy = state.healthy
    if not failures:
        healthy = True
    elif failures >= FAILURES:
        healthy = False
    return State(healthy, failures, problem, now, state.since if healthy == state.healthy else now)


def interval(every: float, chance: float) -> float:
    """Seconds from one check's beginning to the next one's, spread by ``chance`` (0 to 1). Pure."""
    return every * (1 - SPREAD + 2 * SPREAD * chance)


class Monitor:
    """Keeps the states of ``dependencies``."""

    def __init__(
        self,
        dependencies: Sequence[Dependency],
        metrics: Metrics,
        now: Callable[[], datetime],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._dependencies = tuple(dependencies)
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self.states: dict[str, State] = {one.name: State() for one in dependencies}

    async def run(self) -> None:
        """Look at all of them for ever."""
        async with asyncio.TaskGroup() as loops:
            for dependency in self._dependencies:
                loops.create_task(self._watch(dependency))

    async def look(self, dependency: Dependency) -> State:
        """Look at one of them once."""
        problem = await _problem(dependency)
        before = self.states[dependency.name]
        state = self.states[dependency.name] = after(before, problem, self._now())
        if state.healthy is not None:
            self._metrics.dependency_healthy.labels(dependency=dependency.name).set(int(state.healthy))
        if state.healthy is False and before.healthy is not False:
            log.warning("dependency_unhealthy", dependency=dependency.name, reason=problem)
        elif state.healthy and before.healthy is False:
            log.info("dependency_healthy", dependency=dependency.name)
        return state

    async def _watch(self, dependency: Dependency) -> None:
        while True:
            begun = self._clock()
            await self.look(dependency)
            pause = interval(dependency.every, self._chance()) - (self._clock() - begun)
            await self._sleep(max(0.0, pause))


async def _problem(dependency: Dependency) -> str | None:
    try:
        async with asyncio.timeout(dependency.timeout):
            return await dependency.check()
    except TimeoutError:
        return f"no answer within {dependency.timeout:g} s"
    except SupportfleetError as error:
        return str(error)
    except Exception as error:
        log.exception("health_check_broken", dependency=dependency.name)
        return f"the check failed: {type(error).__name__}"
