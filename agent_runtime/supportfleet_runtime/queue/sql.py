"""The queue in SQL: the ``tasks`` table of SQLite or PostgreSQL.

PostgreSQL's workers pass over each other's rows (``FOR UPDATE SKIP LOCKED``); SQLite's take the file in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from supportfleet_runtime.queue.port import Lease, QueueItem
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import DEAD, DONE, LEASED, READY, is_unfinished, tasks

MAX_ERROR = 200


class SqlQueue:
    """One queue of the table. ``lease`` is how many seconds a worker may be silent before its items are another's."""

    def __init__(self, database: Database, name: str, *, lease: float, now: Callable[[], datetime]) -> None:
        self._database = database
        self.name = name
        self._lease = timedelta(seconds=lease)
        self._now = now

    async def publish(self, transaction: AsyncConnection, items: Sequence[QueueItem]) -> None:
        """Add items; they are there when the transaction commits."""
        rows = [
            {
                "id": item.id,
                "queue": self.name,
                "conversation_id": item.conversation_id,
                "turn": item.turn,
                "state": READY,
                "tries": 0,
                "visible_at": item.created_at,
                "created_at": item.created_at,
            }
            for item in items
        ]
        await transaction.execute(insert(tasks), rows)

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` items that are due, oldest first."""
        now = self._now()
        due = (
            select(tasks.c.id)
            .where(tasks.c.queue == self.name, is_unfinished(tasks), tasks.c.visible_at <= now, ~_has_earlier())
            .order_by(tasks.c.visible_at, tasks.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=tasks)
            .cte("due")
        )
        lease = (
            update(tasks)
            .where(tasks.c.id.in_(select(due.c.id)))
            .values(state=LEASED, tries=tasks.c.tries + 1, visible_at=now + self._lease)
            .returning(tasks.c.id, tasks.c.tries)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(lease)).all()
        return [Lease(row.id, row.tries, now) for row in sorted(rows)]

    async def ack(self, transaction: AsyncConnection, leases: Collection[Lease], *, dead: bool = False) -> set[str]:
        """End leases for good. The ids that were still held."""
        ended = {"state": DEAD if dead else DONE, "finished_at": self._now()}
        return await self._update(transaction, leases, ended)

    async def retry(self, lease: Lease, delay: float, error: str) -> None:
        """Give an item back for another try in ``delay`` seconds."""
        due = self._now() + timedelta(seconds=delay)
        async with self._database.write() as connection:
            values = {"state": READY, "visible_at": due, "error": error[:MAX_ERROR]}
            await self._update(connection, [lease], values)

    async def extend(self, leases: Collection[Lease]) -> set[str]:
        """Keep leases alive. The ids that are still held."""
        async with self._database.write() as connection:
            return await self._update(connection, leases, {"visible_at": self._now() + self._lease})

    async def release(self, leases: Collection[Lease]) -> None:
        """Give items back at once, as if they had not been tried."""
        async with self._database.write() as connection:
            values = {"state": READY, "visible_at": self._now(), "tries": tasks.c.tries - 1}
            await self._update(connection, leases, values)

    async def depth(self) -> int:
        """How many items wait for a worker."""
        waiting = select(func.count()).where(tasks.c.queue == self.name, tasks.c.state == READY)
        async with self._database.read() as connection:
            return int((await connection.execute(waiting)).scalar_one())

    async def _update(self, connection: AsyncConnection, leases: Collection[Lease], values: dict[str, Any]) -> set[str]:
        """Set ``values`` on the leased rows that are still these leases'; their ids."""
        if not leases:
            return set()
        held = (
            update(tasks)
            .where(
                tuple_(tasks.c.id, tasks.c.tries).in_([(lease.id, lease.tries) for lease in leases]),
                tasks.c.state == LEASED,
            )
            .values(values)
            .returning(tasks.c.id)
        )
        return set((await connection.execute(held)).scalars())


def _has_earlier() -> ColumnElement[bool]:
    """Whether the conversation has an unfinished task of an earlier turn."""
    earlier = tasks.alias("earlier")
    return exists().where(
        earlier.c.conversation_id == tasks.c.conversation_id,
        earlier.c.turn < tasks.c.turn,
        is_unfinished(earlier),
    )
