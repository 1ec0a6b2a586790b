"""A queue whose tasks a broker carries to the workers, while the database stays the truth about each.

A message is stored with its task in one transaction, and the customer told; the broker has no part in that, so it may
be down, slow or forgetful without a message being refused, or an accepted one lost. Then

1. the *relay* takes due tasks from the table and sends their ids to the broker. Only the first unfinished task of a
   conversation is due, so turns stay in order whatever order a broker delivers in;
2. a worker receives ids, *claims* those tasks in the table, and acknowledges the ids once that is committed. A claim
   succeeds once, however often an id was delivered: the table is where duplicates end;
3. from there on the lease is the table's: heartbeat, retry with its pause, and dead letters are the same as without a
   broker, and a task may run for minutes without holding up a partition or a prefetch window behind it.

A retry and a lease that ran out are due in the table again, so the relay sends them. So is what the broker lost, or was
given just before the relay's process died: what nobody claims is sent again after ``RESEND``, at growing intervals.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from sqlalchemy import Connection

from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.queue.broker import Broker, BrokerUnavailableError, Delivery
from supportfleet_runtime.queue.port import Lease, QueueItem
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup

log = structlog.get_logger()

WAIT: Final = 1.0
"""How long ``receive`` waits: as long as a worker may take to notice that it is to stop."""
RELAY_BATCH: Final = 500
POLL: Final = 1.0
"""How often the relay looks for retries that are due and leases that ran out."""
PAUSE: Final = 1.0
"""How long it lets a broker or a database be that failed."""
TASK_ID: Final = re.compile(rb"[!-~]{1,64}")


class BrokeredQueue:
    """A queue of the table, with a broker between it and the workers."""

    waits = True

    def __init__(self, store: SqlQueue, broker: Broker, wakeup: Wakeup) -> None:
        self._store = store
        self._broker = broker
        self._bell = Wakeup()
        wakeup.listen(self._bell.notify)

    @property
    def name(self) -> str:
        """Its name."""
        return self._store.name

    @property
    def problem(self) -> str | None:
        """What was wrong with the last call to the broker."""
        return self._broker.problem

    def publish(self, transaction: Connection, items: Sequence[QueueItem]) -> None:
        """Add items; they are sent when the transaction has committed."""
        self._store.publish(transaction, items)

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` items that the broker delivers, waiting a second for the first."""
        deliveries = await self._broker.receive(limit, WAIT)
        if not deliveries:
            return ()
        known = [delivery for delivery in deliveries if TASK_ID.fullmatch(delivery.body)]
        foreign = [delivery for delivery in deliveries if not TASK_ID.fullmatch(delivery.body)]
        try:
            leases = await self._store.claim({delivery.body.decode() for delivery in known}) if known else ()
        except StorageError:
            await self._broker.release(deliveries)
            raise
        await self._settle(known, foreign)
        return leases

    def ack(self, transaction: Connection, leases: Collection[Lease], *, dead: bool = False) -> set[str]:
        """End leases for good. The ids that were still held."""
        return self._store.ack(transaction, leases, dead=dead)

    async def retry(self, lease: Lease, delay: float, error: str) -> None:
        """Give an item back for another try in ``delay`` seconds."""
        await self._store.retry(lease, delay, error)

    async def extend(self, leases: Collection[Lease]) -> set[str]:
        """Keep leases alive. The ids that are still held."""
        return await self._store.extend(leases)

    async def release(self, leases: Collection[Lease]) -> None:
        """Give items back at once, as if they had not been tried."""
        await self._store.release(leases)
        self._bell.notify()

    async def depth(self) -> int:
        """How many items wait for a worker, sent or not."""
        return await self._store.depth()

    async def run(self) -> None:
        """Relay for ever."""
        while True:
            try:
                sent = await self.relay()
            except (StorageError, BrokerUnavailableError) as error:
                log.warning("tasks_not_sent", reason=str(error))
                await asyncio.sleep(PAUSE)
                continue
            if sent < RELAY_BATCH:
                await self._bell.wait(POLL)

    async def relay(self) -> int:
        """Send what is due; how many."""
        await self._store.adopt(RELAY_BATCH)
        ids = await self._store.take_unsent(RELAY_BATCH)
        if not ids:
            return 0
        try:
            urgent = {id_.encode() for id_, is_urgent in ids.items() if is_urgent}
            await self._broker.send([id_.encode() for id_ in ids], urgent)
        except BrokerUnavailableError:
            await self._store.not_sent(ids, PAUSE)
            raise
        return len(ids)

    async def close(self) -> None:
        """Close the connection to the broker."""
        await self._broker.close()

    async def _settle(self, known: Sequence[Delivery], foreign: Sequence[Delivery]) -> None:
        """Acknowledge; where that fails they are delivered again, and their claims refused."""
        if foreign:
            log.warning("messages_rejected", number=len(foreign), reason="they are no task's id")
        try:
            await self._broker.settle(known, foreign)
        except BrokerUnavailableError as error:
            log.warning("messages_not_acknowledged", reason=str(error))
