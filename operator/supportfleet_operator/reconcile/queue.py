"""The work queue: keys of agents, each at most once, reconciled by a bounded number of workers.

A key that is added while it waits is one key; added while it is being worked on, it is worked on once more afterwards,
never at the same time. What failed comes back after a delay that doubles with each failure of that key, with jitter,
so that a fleet failing together does not come back together. Urgent keys (whether a key is one is asked when its turn
is decided) overtake the others, come back sooner, and have workers of their own: whatever a mass update does to the
rest, a canary that has traffic is looked at on time. ``Schedule`` is all of that without a clock; ``WorkQueue`` adds
waiting.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 60.0
LONGEST_URGENT_DELAY: Final = 2.0
"""A rollback that the API server could not take is tried again this soon."""

Key = TypeVar("Key", bound=Hashable)


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after this many failures of a key; ``jitter`` is in [0, 1]."""
    delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
    return delay * (0.5 + jitter / 2)


def never(_: object) -> bool:
    """No key is urgent."""
    return False


class Schedule(Generic[Key]):
    """Which key is worked on next; time is an argument."""

    def __init__(self, is_urgent: Callable[[Key], bool] = never) -> None:
        self._is_urgent = is_urgent
        self._urgent: deque[Key] = deque()
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()  # what is in a lane; a key that became urgent meanwhile is in both
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        """Keys that wait for a worker now."""
        return len(self._waiting) + len(self._again)

    @property
    def has_urgent(self) -> bool:
        """Whether a key waits that must not wait for long."""
        return bool(self._urgent)

    @property
    def working(self) -> frozenset[Key]:
        """Keys that are being worked on."""
        return frozenset(self._working)

    def add(self, key: Key) -> None:
        """Work on a key as soon as possible."""
        if key in self._working:
            self._again.add(key)
        elif self._is_urgent(key):
            if key not in self._urgent:
                self._waiting.add(key)
                self._urgent.append(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)

    def add_at(self, key: Key, when: float) -> None:
        """Work on a key at a time; the earliest of several holds."""
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            heapq.heappush(self._heap, (when, next(self._order), key))

    def take(self, now: float, *, urgent_only: bool = False) -> Key | None:
        """The next key to work on, or None when none is due."""
        self._collect(now)
        for lane in (self._urgent,) if urgent_only else (self._urgent, self._ready):
            while lane:
                key = lane.popleft()
                if key in self._waiting:
                    self._waiting.discard(key)
                    self._working.add(key)
                    self._due.pop(key, None)  # this look serves a later appointment too; it is made again if need be
                    return key
        return None

    def next_at(self) -> float | None:
        """When the next key becomes due; None when none is scheduled."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def done(self, key: Key) -> None:
        """A key was worked on with success."""
        self._failures.pop(key, None)
        self._finish(key)

    def failed(self, key: Key, now: float, *, jitter: float, at_least: float = 0.0) -> float:
        """A key was worked on in vain; it comes back after the delay that is returned."""
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        delay = max(at_least, backoff(failures, jitter))
        if self._is_urgent(key):
            delay = min(delay, LONGEST_URGENT_DELAY)
        self._finish(key)  # what was added meanwhile is news, and does not wait for the backoff
        self.add_at(key, now + delay)
        return delay

    def failures(self, key: Key) -> int:
        """Failures of a key in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """Nothing is known of a key any more; what is being worked on ends as usual."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    def _finish(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _collect(self, now: float) -> None:
        """Make ready what has become due."""
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._due[key]
            self.add(key)
            self._drop_stale()

    def _drop_stale(self) -> None:
        """Pass over appointments that were moved or kept."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)


class WorkQueue(Generic[Key]):
    """A schedule that workers wait on."""

    def __init__(self, jitter: Callable[[], float] = random.random, is_urgent: Callable[[Key], bool] = never) -> None:
        self._jitter = jitter
        self._clock = asyncio.get_running_loop().time
        self._schedule: Schedule[Key] = Schedule(is_urgent)
        self._idle: set[asyncio.Future[None]] = set()
        self._reserved: set[asyncio.Future[None]] = set()
        """Workers that sleep, and those of them that are kept for urgent keys."""

    def __len__(self) -> int:
        return len(self._schedule)

    def add(self, key: Key) -> None:
        """Work on a key as soon as possible."""
        self._schedule.add(key)
        self._wake()

    def add_after(self, key: Key, delay: float) -> None:
        """Work on a key after a delay, unless something comes before."""
        self._schedule.add_at(key, self._clock() + delay)
        self._wake()

    async def get(self, *, urgent_only: bool = False) -> Key:
        """Wait for the next key; the caller must say done() or failed() of it."""
        sleeping = self._reserved if urgent_only else self._idle
        while (key := self._schedule.take(self._clock(), urgent_only=urgent_only)) is None:
            await self._wait(self._schedule.next_at(), sleeping)
        return key

    def done(self, key: Key) -> None:
        """A key was worked on with success."""
        self._schedule.done(key)
        self._wake()

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """A key was worked on in vain; returns after how many seconds it comes back."""
        delay = self._schedule.failed(key, self._clock(), jitter=self._jitter(), at_least=at_least)
        self._wake()
        return delay

    def forget(self, key: Key) -> None:
        """The agent is gone: no appointment and no backoff is kept for it."""
        self._schedule.forget(key)

    async def _wait(self, until: float | None, sleeping: set[asyncio.Future[None]]) -> None:
        """Sleep until something is added or becomes due."""
        waiter = asyncio.get_running_loop().create_future()
        sleeping.add(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except TimeoutError:
            pass
        finally:
            sleeping.discard(waiter)

    def _wake(self) -> None:
        """Wake one worker that sleeps, and one that is kept for urgent keys where there is one."""
        for lane in (self._idle, self._reserved) if self._schedule.has_urgent else (self._idle,):
            sleeping = next((waiter for waiter in lane if not waiter.done()), None)
            if sleeping is not None:
                sleeping.set_result(None)
