"""Queue: a task goes through the configured queue and comes back, in a scratch queue that is removed afterwards.

It takes the whole way of a message: a row in the database, the broker where there is one, a lease, an acknowledgement.
No worker of the agent looks at a queue of that name.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, insert

from supportfleet_runtime.checklist import scratch
from supportfleet_runtime.checklist.outcome import Outcome, failed, passed
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.port import Lease, Queue, QueueItem
from supportfleet_runtime.queue.settings import broker_name, queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import conversations

SCOPE: Final = "supportfleet-checklist"
LEASE_SECONDS: Final = 60.0
RECEIVE_SECONDS: Final = 40.0
"""A Kafka group may take that long to take its first member in."""
POLL: Final = 0.1


async def check(subject: Subject) -> Outcome:
    """Send, receive, acknowledge."""
    settings = subject.settings
    address = queue_address(settings.queue_type, settings.queue_url.get_secret_value() if settings.queue_url else None)
    name = f"checklist-{secrets.token_hex(8)}"
    database = subject.database()
    queue = make_queue(
        database,
        name,
        scope=SCOPE,
        address=address,
        consumer="checklist",
        lease=LEASE_SECONDS,
        wakeup=Wakeup(),
        now=subject.now,
    )
    begun = time.perf_counter()
    try:
        problem = await _round_trip(subject, database, queue, name)
    finally:
        await _clean_up(database, queue, name)
        await scratch.remove(address, broker_name(name))
    took = round(1000 * (time.perf_counter() - begun))
    kind = f"{settings.queue_type} over {database.kind}" if isinstance(queue, BrokeredQueue) else database.kind
    return failed(problem) if problem else passed(f"a task went through {kind} and back in {took} ms")


async def _round_trip(subject: Subject, database: Database, queue: Queue, name: str) -> str | None:
    now = subject.now()
    row = {"id": name, "scope": SCOPE, "customer_id": SCOPE, "turns": 1, "created_at": now, "updated_at": now}

    def publish(connection: Connection) -> None:
        connection.execute(insert(conversations), [row])
        queue.publish(connection, [QueueItem(name, name, 1, now)])

    await database.write(publish)
    if isinstance(queue, BrokeredQueue):
        await queue.relay()
    leases = await _receive(queue)
    if [lease.id for lease in leases] != [name]:
        return f"a task that was sent was not received within {RECEIVE_SECONDS:g} s"
    ended = await database.write(lambda connection: queue.ack(connection, leases))
    return None if ended == {name} else "a task that was received could not be acknowledged"


async def _receive(queue: Queue) -> Sequence[Lease]:
    deadline = time.monotonic() + RECEIVE_SECONDS
    leases = await queue.receive(1)
    while not leases and time.monotonic() < deadline:
        await asyncio.sleep(POLL)
        leases = await queue.receive(1)
    return leases


async def _clean_up(database: Database, queue: Queue, name: str) -> None:
    """Leave nothing in the database (the task goes with its conversation), and no connection."""
    try:
        await database.write(
            lambda connection: connection.execute(delete(conversations).where(conversations.c.id == name))
        )
    finally:
        await queue.close()
        await database.close()
