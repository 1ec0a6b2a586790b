"""What was said lately, in a Redis that all pods share (see ``memory``).

Redis is never waited for long: a look has a quarter of a second, and while it fails again and again nothing is asked
for ten, as a circuit breaker decides; the database is read instead, and the log says so once. Entries are written in
the background, the latest of each conversation, so no reply waits for Redis; what has no room to wait is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from supportfleet_runtime.agent.breaker import CircuitBreaker, State
from supportfleet_runtime.agent.turn import Exchange
from supportfleet_runtime.conversations.memory import Said
from supportfleet_runtime.errors import StorageUnavailableError

log = structlog.get_logger()

T = TypeVar("T")

SECONDS: Final = 0.25
FAILURES: Final = 3
PAUSE_SECONDS: Final = 10.0
MOST_WAITING: Final = 2000
AT_ONCE: Final = 200
_BROKEN: Final = (RedisError, OSError, TimeoutError)


class SharedMemory:
    """The entries of one agent (``scope``), for ``ttl`` seconds after they were written."""

    def __init__(self, url: str, scope: str, ttl: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client: Any = Redis.from_url(
            url,
            socket_connect_timeout=SECONDS,
            socket_timeout=SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            client_name="supportfleet-memory",
        )
        self._scope = scope
        self._ttl = round(ttl)
        self._breaker = CircuitBreaker(clock, _tell, failures=FAILURES, pause=PAUSE_SECONDS)
        self._waiting: dict[str, Said] = {}
        self._bell = asyncio.Event()

    async def get(self, conversation_ids: Sequence[str]) -> Mapping[str, Said]:
        """Those that Redis knows; none where it is away."""
        keys = [self._key(id_) for id_ in conversation_ids]
        values: Sequence[bytes | None] = await self._ask(lambda: self._client.mget(keys), ())
        found = {id_: decode(value) for id_, value in zip(conversation_ids, values, strict=False) if value}
        return {id_: said for id_, said in found.items() if said is not None}

    def put(self, entries: Mapping[str, Said]) -> None:
        """Have these written."""
        for id_, said in entries.items():
            self._waiting.pop(id_, None)
            self._waiting[id_] = said
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._bell.set()

    async def forget(self, conversation_ids: Sequence[str]) -> None:
        """Drop these; raises ``StorageUnavailableError`` where Redis can't be reached."""
        for id_ in conversation_ids:
            self._waiting.pop(id_, None)
        try:
            async with asyncio.timeout(SECONDS * 4):
                await self._client.delete(*(self._key(id_) for id_ in conversation_ids))
        except _BROKEN as error:
            raise StorageUnavailableError(f"Redis can't be reached: {type(error).__name__}") from error

    async def run(self) -> None:
        """Write what waits, for ever."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                taken = list(self._waiting.items())[:AT_ONCE]
                for id_, _ in taken:
                    del self._waiting[id_]
                await self._ask(lambda taken=taken: self._write(taken), None)  # type: ignore[misc]

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _write(self, entries: Sequence[tuple[str, Said]]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for id_, said in entries:
                pipeline.set(self._key(id_), encode(said), ex=self._ttl)
            await pipeline.execute()

    async def _ask(self, operation: Callable[[], Awaitable[T]], otherwise: T) -> T:
        permit = self._breaker.admit()
        if permit is None:
            return otherwise
        try:
            async with asyncio.timeout(SECONDS):
                result = await operation()
        except _BROKEN:
            permit.failed()
            return otherwise
        except BaseException:
            permit.dropped()
            raise
        permit.succeeded()
        return result

    def _key(self, conversation_id: str) -> str:
        return f"supportfleet:{self._scope}:said:{conversation_id}"


def encode(said: Said) -> bytes:
    """An entry as it is kept in Redis."""
    rows = [(one.number, one.text, one.reply) for one in said.exchanges]
    return orjson.dumps({"revision": said.revision, "last": said.last, "said": rows})


def decode(value: bytes) -> Said | None:
    """It, or nothing where it is something else: an entry is only ever a copy."""
    try:
        read = orjson.loads(value)
        rows = tuple(Exchange(text, reply, number) for number, text, reply in read["said"])
        return Said(int(read["revision"]), int(read["last"]), rows)
    except (ValueError, KeyError, TypeError):
        return None


def _tell(state: State) -> None:
    if state is State.OPEN:
        log.warning("memory_unavailable", remedy="conversations are read from the database until Redis is back")
    elif state is State.CLOSED:
        log.info("memory_available")
