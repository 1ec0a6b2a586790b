"""Redis Streams: a stream for each queue, one consumer group.

What was read and not acknowledged is pending: the process that read it looks there first after a failure
(``XREADGROUP`` from 0), and what a vanished process left is taken over once nobody touched it for ``TAKE_OVER``
(``XAUTOCLAIM``). An acknowledged message is deleted, so the stream's length is what waits. Redis may lose its last
second in a crash, as its persistence is configured: the table has those tasks too, and they are sent again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from supportfleet_runtime.queue.broker import CALL_SECONDS, CONNECT_SECONDS, MAX_REJECTED, Delivery

FAILURES: Final = (RedisError,)
GROUP: Final = "workers"
FIELD: Final = b"task"
TAKE_OVER: Final = 10.0
"""Seconds after which whoever read a message is gone: it is pending while its task is claimed, for milliseconds."""
UNUSED: Final = 14 * 24 * 3600
"""After how many seconds the stream of a revision that is gone is removed."""
FORGET: Final = 3600.0
"""After how long a consumer that nobody heard of is removed."""


class RedisLink:
    """A stream and its consumer group."""

    def __init__(self, client: Any, key: str, consumer: str, *, take_over: float = TAKE_OVER) -> None:
        self._client = client
        self._key = key
        self._consumer = consumer
        self._take_over = take_over
        self._has_own = True
        """Whether something may be pending for this consumer from before."""
        self._looked = 0.0

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:  # noqa: ARG002 - all are alike
        """Add to the stream."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for body in bodies:
                pipeline.xadd(self._key, {FIELD: body})
            pipeline.expire(self._key, UNUSED)
            await pipeline.execute()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """What is pending here, what a vanished consumer left, what is new: the first of these that there is."""
        if self._has_own:
            if own := await self._read("0", limit, None):
                return own
            self._has_own = False
        if time.monotonic() - self._looked > self._take_over:
            if left := await self._take_what_was_left(limit):
                return left
            self._looked = time.monotonic()
        return await self._read(">", limit, max(1, round(wait * 1000)))

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        """Acknowledge and delete; the rejected are moved to a stream of their own."""
        ids = [delivery.tag for delivery in (*done, *rejected)]
        async with self._client.pipeline(transaction=True) as pipeline:
            for delivery in rejected:
                pipeline.xadd(f"{self._key}:dead", {FIELD: delivery.body}, maxlen=MAX_REJECTED)
                pipeline.expire(f"{self._key}:dead", UNUSED)
            pipeline.xack(self._key, GROUP, *ids)
            pipeline.xdel(self._key, *ids)
            await pipeline.execute()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Leave them pending, and look there first."""
        self._has_own = bool(deliveries) or self._has_own

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def prepare(self) -> None:
        """Make the group where it is missing, and forget consumers that vanished."""
        try:
            await self._client.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        for consumer in await self._client.xinfo_consumers(self._key, GROUP):
            if consumer["pending"] == 0 and consumer["idle"] > FORGET * 1000:
                await self._client.xgroup_delconsumer(self._key, GROUP, consumer["name"])

    async def _read(self, start: str, limit: int, block: int | None) -> list[Delivery]:
        got = await self._client.xreadgroup(GROUP, self._consumer, {self._key: start}, count=limit, block=block)
        streams = got.items() if isinstance(got, dict) else got or ()
        return [delivery for _, entries in streams for delivery in await self._deliveries(_flat(entries))]

    async def _take_what_was_left(self, limit: int) -> list[Delivery]:
        idle = round(self._take_over * 1000)
        got = await self._client.xautoclaim(self._key, GROUP, self._consumer, idle, start_id="0", count=limit)
        return await self._deliveries(got[1])

    async def _deliveries(self, entries: Sequence[tuple[Any, dict[bytes, bytes] | None]]) -> list[Delivery]:
        """Entries as deliveries; one that was deleted while it was pending is done with."""
        gone = [Delivery(b"", id_) for id_, fields in entries if not fields]
        if gone:
            await self.settle(gone, ())
        return [Delivery(fields.get(FIELD, b""), id_) for id_, fields in entries if fields]


def _flat(entries: Any) -> Sequence[Any]:
    """A stream's entries; RESP3 answers with a list of batches of them."""
    return [entry for batch in entries for entry in batch] if entries and isinstance(entries[0], list) else entries


async def connect(url: str, queue: str, consumer: str, *, take_over: float = TAKE_OVER) -> RedisLink:
    """Connect, and make stream and group where they are missing."""
    client = Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=2 * CALL_SECONDS,  # longer than a read waits
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        client_name="supportfleet",
    )
    link = RedisLink(client, f"supportfleet:{{{queue}}}", consumer, take_over=take_over)
    try:
        await link.prepare()
    except BaseException:
        await link.close()
        raise
    return link
