"""Rows that are worked under leases, whatever table they are in.

A row waits (``ready``) until its ``visible_at``, is ``leased`` to one worker, and ends as ``done`` or ``dead``. A lease
is known by the row's id and its number of tries, which each lease adds to, so a worker whose lease ran out can't end,
extend or give back what is another's by now. What is due, and for whom, is each table's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Executable, Select, Table, bindparam, select, update

from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.storage.batcher import Batcher
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import DEAD, DONE, LEASED, READY

MAX_ERROR: Final = 200


def leasing(table: Table, due: Select[Any], *returned: ColumnElement[Any]) -> Executable:
    """A statement that leases the rows whose ids ``due`` finds and locks."""
    found = due.cte("due")
    return (
        update(table)
        .where(table.c.id.in_(select(found.c.id)))
        .values(state=LEASED, tries=table.c.tries + 1, visible_at=bindparam("until_"))
        .returning(*returned)
    )


class LeaseStatements:
    """What is done to a table's leased rows. Make one for each table, once: building costs more than running."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.end = self.of_held(state=bindparam("state_"), finished_at=bindparam("finished_"))
        self.retry = self.of_held(state=READY, visible_at=bindparam("visible_"), error=bindparam("error_"))
        self.extend = self.of_held(visible_at=bindparam("visible_"))
        self.release = self.of_held(state=READY, visible_at=bindparam("visible_"), tries=table.c.tries - 1)

    def of_held(self, **values: Any) -> Executable:
        """An update of rows that are still those leases' (``leases_``); it returns their ids."""
        columns = self._table.c
        is_held = among("leases_", columns.id, columns.tries)
        return update(self._table).where(is_held, columns.state == LEASED).values(values).returning(columns.id)


class LeasedRows:
    """The end of leases; ``lease`` is how many seconds a worker may be silent before its rows are another's."""

    waits = False

    def __init__(
        self, database: Database, statements: LeaseStatements, *, lease: float, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._statements = statements
        self._lease = timedelta(seconds=lease)
        self._now = now
        self._retries: Batcher[tuple[Lease, float, str], None] = Batcher(self._retry)

    def ack(self, transaction: Connection, leases: Collection[Lease], *, dead: bool = False) -> set[str]:
        """End leases for good. The ids that were still held."""
        values = {"state_": DEAD if dead else DONE, "finished_": self._now()}
        return update_held(transaction, self._statements.end, leases, values)

    async def retry(self, lease: Lease, delay: float, error: str) -> None:
        """Give an item back for another try in ``delay`` seconds."""
        await self._retries.submit((lease, delay, error))

    async def _retry(self, batch: Sequence[tuple[Lease, float, str]]) -> Sequence[None]:
        """All that failed at the same time in one transaction: a crowd of bad items must not hold up the good ones."""
        now = self._now()

        def work(connection: Connection) -> None:
            for lease, delay, error in batch:
                values = {"visible_": now + timedelta(seconds=delay), "error_": error[:MAX_ERROR]}
                update_held(connection, self._statements.retry, [lease], values)

        await self._database.write(work)
        return [None] * len(batch)

    async def extend(self, leases: Collection[Lease]) -> set[str]:
        """Keep leases alive. The ids that are still held."""
        values = {"visible_": self._now() + self._lease}
        statement = self._statements.extend
        return await self._database.write(lambda connection: update_held(connection, statement, leases, values))

    async def release(self, leases: Collection[Lease]) -> None:
        """Give items back at once, as if they had not been tried."""
        values = {"visible_": self._now()}
        statement = self._statements.release
        await self._database.write(lambda connection: update_held(connection, statement, leases, values))


def update_held(
    connection: Connection, statement: Executable, leases: Collection[Lease], values: dict[str, Any]
) -> set[str]:
    """Update the rows that are still these leases'; their ids."""
    if not leases:
        return set()
    keys = [(lease.id, lease.tries) for lease in leases]
    return set(connection.execute(statement, {**values, "leases_": keys}).scalars())


def leases_of(rows: Sequence[Any], now: datetime) -> list[Lease]:
    """The leases that these rows became, oldest first."""
    leases = (Lease(row.id, row.tries, now, row.created_at, row.trace) for row in rows)
    return sorted(leases, key=lambda lease: lease.id)
