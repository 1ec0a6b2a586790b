"""The queue in SQL: the ``tasks`` table of SQLite or PostgreSQL.

PostgreSQL's workers pass over each other's rows (``FOR UPDATE SKIP LOCKED``); SQLite's take the file in turn. The
statements are built once: building one costs more than running it.

Where a broker carries the tasks to the workers (``brokered``), the table is the truth all the same: ``take_unsent`` and
``claim`` take the place of ``receive``. A task that is ``ready`` has then been handed to the broker, or is about to be,
and ``visible_at`` is when it is handed over (again).

Each revision of an agent has a queue of its own, so that a canary's messages are worked by the canary. Those of a
revision that is gone are worked by the others: a queue of the same ``scope`` whose tasks have been due for ``ADOPT`` is
taken to be left, or too full for its own workers, and its tasks become the queue's that has room for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    bindparam,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from supportfleet_runtime.queue.leases import LeasedRows, LeaseStatements, leases_of, leasing
from supportfleet_runtime.queue.port import Lease, QueueItem
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import LEASED, READY, is_unfinished, tasks

log = structlog.get_logger()

ADOPT: Final = timedelta(seconds=15)
"""How long a task of another revision must have been due before it is worked here."""
ADOPT_EVERY: Final = timedelta(seconds=1)
"""How often a queue looks for such tasks, at most."""
LEAD: Final = timedelta(seconds=30)
"""What is urgent is due so long before it came: ahead of what came since, and behind what has waited longer than that.
So nothing waits for ever behind what is urgent, and no row, index or query is another for it."""
RESEND: Final = timedelta(seconds=30)
"""After how long a task that was handed to a broker, and claimed by nobody, is handed over again."""


class SqlQueue(LeasedRows):
    """One queue of the table. ``lease`` is how many seconds a worker may be silent before its items are another's.

    ``scope`` is the agent; its queues are that and whatever begins with it and a slash.
    """

    def __init__(
        self, database: Database, name: str, *, lease: float, now: Callable[[], datetime], scope: str | None = None
    ) -> None:
        super().__init__(database, _LEASES, lease=lease, now=now)
        self.name = name
        has_kin = scope is not None and (name == scope or name.startswith(f"{scope}/"))
        self._scope = scope if has_kin else None
        self._adopted_at: datetime | None = None

    def publish(self, transaction: Connection, items: Sequence[QueueItem]) -> None:
        """Add items; they are there when the transaction commits."""
        rows = [
            {
                "id": item.id,
                "queue": self.name,
                "conversation_id": item.conversation_id,
                "turn": item.turn,
                "state": READY,
                "tries": 0,
                "visible_at": item.created_at - LEAD if item.urgent else item.created_at,
                "created_at": item.created_at,
                "trace": item.trace,
            }
            for item in items
        ]
        transaction.execute(_INSERT, rows)

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` items that are due, oldest first: its own, then those of revisions that are gone."""
        leases = await self._receive(limit)
        if len(leases) < limit and await self.adopt(limit - len(leases)):
            return [*leases, *await self._receive(limit - len(leases))]
        return leases

    async def _receive(self, limit: int) -> Sequence[Lease]:
        now = self._now()
        values = {"queue_": self.name, "now_": now, "until_": now + self._lease, "limit_": limit}
        rows = await self._database.write(lambda connection: connection.execute(_LEASE, values).all())
        return leases_of(rows, now)

    async def depth(self) -> int:
        """How many items wait for a worker."""
        values = {"queue_": self.name}
        return await self._database.read(lambda connection: int(connection.execute(_DEPTH, values).scalar_one()))

    async def run(self) -> None:
        """There is nothing to be done."""

    async def close(self) -> None:
        """There is nothing to be closed: the database is its owner's."""

    async def adopt(self, limit: int) -> int:
        """Take over tasks of the agent's other queues that nobody works; how many."""
        now = self._now()
        if self._scope is None or (self._adopted_at is not None and abs(now - self._adopted_at) < ADOPT_EVERY):
            return 0
        self._adopted_at = now
        start = f"{self._scope}/"
        values = {"queue_": self.name, "scope_": self._scope, "start_": start, "length_": len(start)}
        values |= {"before_": now - ADOPT, "limit_": limit}
        number = await self._database.write(lambda connection: len(connection.execute(_ADOPT, values).all()))
        if number:
            log.info("tasks_adopted", queue=self.name, number=number)
        return number

    async def take_unsent(self, limit: int) -> Mapping[str, bool]:
        """Tasks that a broker must be given (again), oldest first, and whether each is urgent.

        They are taken to have been given it. One that is not claimed is taken again after ``RESEND``, then after its
        age, so that a task waiting in a long line is sent a few times and not every half a minute. What was leased and
        given up is ready again with this.
        """
        now = self._now()
        values = {"queue_": self.name, "now_": now, "limit_": limit}

        def work(connection: Connection) -> dict[str, bool]:
            rows = connection.execute(_UNSENT, values).all()
            if rows:
                times = [{"id_": row.id, "visible_": now + max(RESEND, now - row.created_at)} for row in rows]
                connection.execute(_SENT, times)
            return {row.id: row.visible_at < row.created_at for row in rows}

        return await self._database.write(work)

    async def not_sent(self, ids: Iterable[str], delay: float) -> None:
        """Take it back: the broker did not get them; they are to be sent in ``delay`` seconds."""
        visible = self._now() + timedelta(seconds=delay)
        rows = [{"id_": id_, "visible_": visible} for id_ in ids]
        await self._database.write(lambda connection: connection.execute(_NOT_SENT, rows))

    async def claim(self, ids: Collection[str]) -> Sequence[Lease]:
        """Lease these tasks, as far as they wait for a worker; others have ended, or are another's, or not due."""
        now = self._now()
        values = {"queue_": self.name, "until_": now + self._lease, "ids_": list(ids)}
        rows = await self._database.write(lambda connection: connection.execute(_CLAIM, values).all())
        return leases_of(rows, now)


def _has_earlier() -> ColumnElement[bool]:
    """Whether an unfinished task of the same conversation comes first."""
    earlier = tasks.alias("earlier")
    return exists().where(
        earlier.c.conversation_id == tasks.c.conversation_id, earlier.c.turn < tasks.c.turn, is_unfinished(earlier)
    )


_LEASED: Final = (tasks.c.id, tasks.c.tries, tasks.c.created_at, tasks.c.trace)


def _due(*columns: ColumnElement[Any]) -> Select[Any]:
    """What is due, but nothing behind an unfinished task of the same conversation; the rows are locked."""
    return (
        select(*columns)
        .where(
            tasks.c.queue == bindparam("queue_"),
            is_unfinished(tasks),
            tasks.c.visible_at <= bindparam("now_", type_=tasks.c.visible_at.type),
            ~_has_earlier(),
        )
        .order_by(tasks.c.visible_at, tasks.c.id)
        .limit(bindparam("limit_"))
        .with_for_update(skip_locked=True, of=tasks)
    )


def _is_ready() -> ColumnElement[bool]:
    return tasks.c.state == literal(READY, literal_execute=True)


_INSERT = insert(tasks)
_LEASE = leasing(tasks, _due(tasks.c.id), *_LEASED)
_LEASES: Final = LeaseStatements(tasks)


def _adopt_statement() -> Executable:
    is_kin = or_(
        tasks.c.queue == bindparam("scope_"),
        func.substr(tasks.c.queue, 1, bindparam("length_")) == bindparam("start_"),
    )
    left = (
        select(tasks.c.id)
        .where(
            is_kin,
            tasks.c.queue != bindparam("queue_"),
            is_unfinished(tasks),
            tasks.c.visible_at <= bindparam("before_", type_=tasks.c.visible_at.type),
            tasks.c.created_at <= bindparam("before_", type_=tasks.c.created_at.type),  # what is urgent only looks late
        )
        .order_by(tasks.c.visible_at)
        .limit(bindparam("limit_"))
        .with_for_update(skip_locked=True, of=tasks)
        .cte("left_behind")
    )
    return (
        update(tasks).where(tasks.c.id.in_(select(left.c.id))).values(queue=bindparam("queue_")).returning(tasks.c.id)
    )


_ADOPT = _adopt_statement()
_UNSENT = _due(tasks.c.id, tasks.c.created_at, tasks.c.visible_at)
_SENT = update(tasks).where(tasks.c.id == bindparam("id_")).values(state=READY, visible_at=bindparam("visible_"))
_NOT_SENT = update(tasks).where(tasks.c.id == bindparam("id_"), _is_ready()).values(visible_at=bindparam("visible_"))
_CLAIM = (
    update(tasks)
    .where(
        among("ids_", tasks.c.id),
        tasks.c.queue == bindparam("queue_"),
        _is_ready(),
        ~_has_earlier(),
    )
    .values(state=LEASED, tries=tasks.c.tries + 1, visible_at=bindparam("until_"))
    .returning(*_LEASED)
)
# SQLite doesn't see by itself that what is ready is in the index of what is unfinished.
_DEPTH = select(func.count()).where(tasks.c.queue == bindparam("queue_"), is_unfinished(tasks), _is_ready())
