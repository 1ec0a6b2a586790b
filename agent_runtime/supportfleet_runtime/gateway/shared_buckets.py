"""Token buckets in Redis, so that all pods count together.

One script takes the tokens of all requests that arrive together, atomically and by Redis's own clock, so pods whose
clocks differ agree. Keys hold the customer's hash, not their id, and expire once their bucket would be full. Where
Redis doesn't answer, each pod counts for itself and tries Redis again after ``PAUSE``: a customer is never refused, nor
kept waiting, because Redis is away. Imported only where REDIS_URL is set.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from supportfleet_runtime.gateway.buckets import MemoryBuckets, Policy, Standing, standing
from supportfleet_runtime.storage.batcher import Batcher

log = structlog.get_logger()

CALL_SECONDS: Final = 0.25
PAUSE: Final = 5.0
FAILURES: Final = (RedisError, OSError, TimeoutError)
SCRIPT: Final = """
local quota, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local results = {}
for _, key in ipairs(KEYS) do
  local found = redis.call('HMGET', key, 'level', 'at')
  local level = quota
  if found[1] then
    level = math.min(quota, tonumber(found[1]) + math.max(0, now - tonumber(found[2])) * rate)
  end
  local allowed = level >= 1 and 1 or 0
  level = level - allowed
  redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
  redis.call('PEXPIRE', key, math.ceil((quota - level) / rate * 1000) + 1000)
  results[#results + 1] = allowed
  results[#results + 1] = string.format('%.6f', level)
end
return results
"""


class SharedBuckets:
    """The buckets of all pods of one agent (``scope``)."""

    def __init__(
        self,
        url: str,
        scope: str,
        policy: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = CALL_SECONDS,
    ) -> None:
        self.policy = policy
        self._scope = scope
        self._clock = clock
        self._timeout = timeout
        self._own = MemoryBuckets(policy, clock=clock)
        self._client: Any = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._script = self._client.register_script(SCRIPT)
        self._away_until: float | None = None
        self._batcher: Batcher[str, Standing] = Batcher(self._take_together)

    async def take(self, customer: str) -> Standing:
        """Take a token."""
        if self._away_until is not None and self._clock() < self._away_until:
            return self._own.take_now(customer)
        return await self._batcher.submit(customer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _take_together(self, customers: Sequence[str]) -> Sequence[Standing]:
        keys = [self._key(customer) for customer in customers]
        try:
            async with asyncio.timeout(2 * self._timeout):
                found = await self._script(keys=keys, args=[self.policy.quota, repr(self.policy.rate)])
        except FAILURES as error:
            self._leave(error)
            return [self._own.take_now(customer) for customer in customers]
        if self._away_until is not None:
            self._away_until = None
            log.info("rate_limits_shared")
        pairs = zip(found[::2], found[1::2], strict=True)
        return [standing(float(level), self.policy, allowed=bool(allowed)) for allowed, level in pairs]

    def _leave(self, error: Exception) -> None:
        if self._away_until is None:  # told once for each outage
            log.warning("rate_limits_not_shared", reason=type(error).__name__, remedy="see that REDIS_URL answers")
        self._away_until = self._clock() + PAUSE

    def _key(self, customer: str) -> str:
        digest = hashlib.sha256(customer.encode(errors="surrogatepass")).hexdigest()[:32]
        return f"supportfleet:{self._scope}:rate:{digest}"
