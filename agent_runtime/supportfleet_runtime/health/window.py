"""The last five minutes' figures: error rate and p99 latency, in a fixed amount of memory.

A ring of slots of ten seconds, each with counts of messages by latency; a slot that comes round again is emptied first.
Latencies are counted in buckets that grow by 10 %, so a quantile is read at most that much too high. Counted are the
messages that were taken: a request that was refused for its caller's fault (4xx) says nothing of the agent.
"""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

WINDOW_SECONDS: Final = 300
SLOT_SECONDS: Final = 10
SLOTS: Final = WINDOW_SECONDS // SLOT_SECONDS
SHORTEST, LONGEST, GROWTH = 0.0005, 120.0, 1.1
EDGES: Final = tuple(SHORTEST * GROWTH**n for n in range(math.ceil(math.log(LONGEST / SHORTEST, GROWTH)) + 1))
QUANTILE: Final = 0.99
SERVER_ERROR: Final = 500
CALLERS_FAULT: Final = range(400, 500)


@dataclass(frozen=True)
class Figures:
    """What the window holds. Rates of nothing are ``None``."""

    messages: int
    error_rate: float | None
    latency_p99: float | None


class _Slot:
    """Ten seconds."""

    def __init__(self) -> None:
        self.number = -1
        self.errors = 0
        self.latencies = array("L", bytes(array("L").itemsize * (len(EDGES) + 1)))

    def begin(self, number: int) -> None:
        self.number = number
        self.errors = 0
        for bucket in range(len(self.latencies)):
            self.latencies[bucket] = 0


class SlidingWindow:
    """Counts messages by their status and latency. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots = [_Slot() for _ in range(SLOTS)]

    def record(self, status: int, seconds: float) -> None:
        """Count a message that was answered."""
        if status in CALLERS_FAULT:
            return
        number = int(self._clock() // SLOT_SECONDS)
        slot = self._slots[number % SLOTS]
        if slot.number != number:
            slot.begin(number)
        slot.errors += status >= SERVER_ERROR
        slot.latencies[bisect_left(EDGES, seconds)] += 1

    def figures(self) -> Figures:
        """The figures of the slots that are not too old."""
        oldest = int(self._clock() // SLOT_SECONDS) - SLOTS + 1
        slots = [slot for slot in self._slots if slot.number >= oldest]
        counts = [sum(bucket) for bucket in zip(*(slot.latencies for slot in slots), strict=True)]
        messages = sum(counts)
        if not messages:
            return Figures(0, None, None)
        return Figures(messages, sum(slot.errors for slot in slots) / messages, quantile(counts, QUANTILE))


def quantile(counts: list[int], share: float) -> float:
    """The upper edge of the bucket that the ``share`` of what was counted lies in or below. Pure."""
    totals = list(accumulate(counts))
    return EDGES[min(bisect_left(totals, share * totals[-1]), len(EDGES) - 1)]
