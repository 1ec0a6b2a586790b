"""Token buckets: how often each customer may ask.

A bucket holds ``quota`` tokens and gains as many in every ``window`` seconds; a request takes one. So a customer may
ask ``quota`` times at once, and in the long run ``quota`` times a window. A bucket that is full says nothing, so it
need not be kept: memory is bounded by those who asked lately, and by ``MAX_BUCKETS``, beyond which the customers who
asked longest ago are forgotten.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

MAX_BUCKETS: Final = 50_000


@dataclass(frozen=True)
class Policy:
    """How much is allowed."""

    quota: int
    window: float

    @property
    def rate(self) -> float:
        """Tokens that a bucket gains in a second."""
        return self.quota / self.window


class Bucket(NamedTuple):
    """What was in it, and when."""

    level: float
    at: float


class Standing(NamedTuple):
    """Whether a request is allowed, and how its customer stands."""

    allowed: bool
    remaining: int
    full_in: float
    """Seconds until the whole quota is there again."""
    retry_in: float
    """Seconds until one more request is allowed."""


class Buckets(Protocol):
    """Everyone's buckets."""

    policy: Policy

    async def take(self, customer: str) -> Standing:
        """Take a token for a request, if there is one."""
        ...

    async def close(self) -> None:
        """Let go of what they are kept in."""
        ...


def take(bucket: Bucket | None, now: float, policy: Policy) -> tuple[Bucket, Standing]:
    """The bucket after a request at ``now``. ``None`` is a full one; a clock that goes back gives nothing."""
    found = bucket or Bucket(policy.quota, now)
    level = min(policy.quota, found.level + max(0.0, now - found.at) * policy.rate)
    allowed = level >= 1
    left = level - 1 if allowed else level
    return Bucket(left, max(now, found.at)), standing(left, policy, allowed=allowed)


def standing(level: float, policy: Policy, *, allowed: bool) -> Standing:
    """How a customer stands whose bucket holds ``level`` after the request."""
    return Standing(
        allowed=allowed,
        remaining=math.floor(level),
        full_in=(policy.quota - level) / policy.rate,
        retry_in=max(0.0, 1 - level) / policy.rate,
    )


class MemoryBuckets:
    """Buckets of this process alone."""

    def __init__(
        self, policy: Policy, *, clock: Callable[[], float] = time.monotonic, largest: int = MAX_BUCKETS
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._largest = largest
        self._buckets: dict[str, Bucket] = {}
        """The customers who asked last are last."""

    async def take(self, customer: str) -> Standing:
        """Take a token."""
        return self.take_now(customer)

    async def close(self) -> None:
        """Nothing is open."""

    def take_now(self, customer: str) -> Standing:
        """Take a token; nothing is waited for."""
        now = self._clock()
        bucket, result = take(self._buckets.pop(customer, None), now, self.policy)
        self._buckets[customer] = bucket
        self._forget(now)
        return result

    def __len__(self) -> int:
        return len(self._buckets)

    def _forget(self, now: float) -> None:
        """Drop up to two of the oldest that are full by now, and one if they are too many: a call adds one at most."""
        for _ in range(2):
            oldest = next(iter(self._buckets))
            bucket = self._buckets[oldest]
            is_full = bucket.level + (now - bucket.at) * self.policy.rate >= self.policy.quota
            if not is_full and len(self._buckets) <= self._largest:
                return
            del self._buckets[oldest]
            if not self._buckets:
                return
