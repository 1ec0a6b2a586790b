"""One rate limit for all requests, with a lane that overtakes.

A mass update (hundreds of agents edited at once) may queue thousands of writes. What moves customers' traffic, above
all a rollback, must not wait behind them: urgent requests go first, and a 429 answered to the bulk pauses the bulk
alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """A token bucket; time is an argument."""

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Take a token and return 0, or return how many seconds until there is one."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


class Limiter:
    """Let requests through at a rate, urgent ones first."""

    def __init__(self, rate: float, burst: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(rate, burst, burst, self._loop.time())
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._bulk: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._urgent) + len(self._bulk)

    def pause(self, seconds: float) -> None:
        """Hold the bulk back, as the API server asked."""
        self._paused_until = max(self._paused_until, self._loop.time() + seconds)

    async def acquire(self, *, urgent: bool = False) -> None:
        """Wait for the turn of one request."""
        turn: asyncio.Future[None] = self._loop.create_future()
        (self._urgent if urgent else self._bulk).append(turn)
        self._release()
        await turn

    def _release(self) -> None:
        """Let as many through as the bucket and the pause allow, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while lane := self._lane(now):
            if lane[0].done():  # its caller was cancelled while it waited
                lane.popleft()
                continue
            if delay := self._bucket.take(now):
                self._timer = self._loop.call_later(delay, self._release)
                return
            lane.popleft().set_result(None)
        if self._bulk:
            self._timer = self._loop.call_later(self._paused_until - now, self._release)

    def _lane(self, now: float) -> deque[asyncio.Future[None]] | None:
        if self._urgent:
            return self._urgent
        return self._bulk if self._bulk and now >= self._paused_until else None
