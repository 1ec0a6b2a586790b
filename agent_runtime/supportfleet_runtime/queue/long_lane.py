"""The long lane: tasks that take minutes, leased apart from those that take seconds.

A worker that takes a task and finds that it takes long ends its lease and puts it here, in one transaction; so the
queue is free for the conversation's next turn, and a broker has nothing to do with it. Rows are leased as the queue's
are, to workers of the same queue; those of a revision that is gone are worked by the agent's others after ``ADOPT``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from supportfleet_runtime.queue.leases import LeasedRows, LeaseStatements, leases_of, leasing, update_held
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.sql import ADOPT
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import DEAD, DONE, LONG, READY, is_unfinished, long_tasks, tasks


class LongLane(LeasedRows):
    """The long tasks of the agent ``scope``; ``name`` is the queue whose workers come first."""

    def __init__(self, database: Database, name: str, *, scope: str, lease: float, now: Callable[[], datetime]) -> None:
        super().__init__(database, _LEASES, lease=lease, now=now)
        self._name = name
        self._scope = scope

    def add(self, transaction: Connection, rows: Sequence[tuple[str, tuple[str, int] | None]]) -> None:
        """Take over tasks whose leases the queue has just ended, each with the question that it may answer."""
        now = self._now()
        fixed = {"scope": self._scope, "queue": self._name, "progress": 0, "state": READY, "tries": 0}
        fixed |= {"visible_at": now, "created_at": now}
        ids = [id_ for id_, _ in rows]
        questions = [pending or (None, None) for _, pending in rows]
        transaction.execute(_MARK_LONG, {"ids_": ids})
        transaction.execute(_FORGET, {"ids_": ids})  # an earlier attempt's, where a dead letter is worked again
        transaction.execute(
            _INSERT,
            [
                {"id": id_, "pending_intent": intent, "pending_asked": asked, **fixed}
                for id_, (intent, asked) in zip(ids, questions, strict=True)
            ],
        )

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` tasks that are due, oldest first."""
        now = self._now()
        values = {"scope_": self._scope, "queue_": self._name, "limit_": limit}
        values |= {"now_": now, "before_": now - ADOPT, "until_": now + self._lease}
        rows = await self._database.write(lambda connection: connection.execute(_LEASE, values).all())
        return leases_of(rows, now)

    def ack(self, transaction: Connection, leases: Collection[Lease], *, dead: bool = False) -> set[str]:
        """End leases and their tasks for good. The ids that were still held."""
        held = super().ack(transaction, leases, dead=dead)
        if held:
            values = {"state_": DEAD if dead else DONE, "finished_": self._now(), "ids_": sorted(held)}
            transaction.execute(_END_TASKS, values)
        return held

    async def question(self, lease: Lease) -> tuple[str, int] | None:
        """The question that the task's message may answer: intent, and how often it was asked."""
        row = await self._database.read(lambda connection: connection.execute(_QUESTION, {"id_": lease.id}).first())
        return (row.pending_intent, row.pending_asked or 1) if row and row.pending_intent else None

    async def report(self, lease: Lease, progress: int) -> None:
        """Tell how far the work is, in percent; nothing where the lease was lost."""
        await self._update(lease, _REPORT, {"progress_": progress})

    async def keep(self, lease: Lease, result: str) -> None:
        """Keep the result (JSON), which is shown once the task is done; nothing where the lease was lost."""
        await self._update(lease, _KEEP, {"result_": result})

    async def waiting(self) -> int:
        """How many long tasks wait for a worker."""
        values = {"scope_": self._scope, "queue_": self._name}
        return await self._database.read(lambda connection: int(connection.execute(_WAITING, values).scalar_one()))

    async def _update(self, lease: Lease, statement: Executable, values: dict[str, Any]) -> None:
        await self._database.write(lambda connection: update_held(connection, statement, [lease], values))


# Written out: for SQLite, SQLAlchemy leaves the tables' names out of what is returned, and every id is equal to itself.
_TRACE: ColumnElement[str] = literal_column("(SELECT tasks.trace FROM tasks WHERE tasks.id = long_tasks.id)").label(
    "trace"
)


def _due() -> Select[Any]:
    moment = long_tasks.c.visible_at.type
    return (
        select(long_tasks.c.id)
        .where(
            long_tasks.c.scope == bindparam("scope_"),
            is_unfinished(long_tasks),
            or_(
                and_(
                    long_tasks.c.queue == bindparam("queue_"),
                    long_tasks.c.visible_at <= bindparam("now_", type_=moment),
                ),
                long_tasks.c.visible_at <= bindparam("before_", type_=moment),
            ),
        )
        .order_by(long_tasks.c.visible_at, long_tasks.c.id)
        .limit(bindparam("limit_"))
        .with_for_update(skip_locked=True)
    )


_LEASES: Final = LeaseStatements(long_tasks)
_LEASE = leasing(long_tasks, _due(), long_tasks.c.id, long_tasks.c.tries, long_tasks.c.created_at, _TRACE)
_INSERT = insert(long_tasks)
_FORGET = delete(long_tasks).where(among("ids_", long_tasks.c.id))
_MARK_LONG = update(tasks).where(among("ids_", tasks.c.id)).values(state=LONG, finished_at=None)
_END_TASKS = (
    update(tasks).where(among("ids_", tasks.c.id)).values(state=bindparam("state_"), finished_at=bindparam("finished_"))
)
_QUESTION = select(long_tasks.c.pending_intent, long_tasks.c.pending_asked).where(long_tasks.c.id == bindparam("id_"))
_REPORT = _LEASES.of_held(progress=bindparam("progress_"))
_KEEP = _LEASES.of_held(result=bindparam("result_"), progress=100)
_WAITING = select(func.count()).where(
    long_tasks.c.scope == bindparam("scope_"),
    long_tasks.c.queue == bindparam("queue_"),
    is_unfinished(long_tasks),
    long_tasks.c.state == READY,
)
