"""Messages that were given up: what there is of them, and having them worked again.

A dead letter is a task that failed as often as it may. Its customer got the generic reply. Replaying it takes that
reply out of the conversation and makes the task wait for a worker again, with all its tries; the new reply takes the
old one's place, so each message still has one. Who asked for a callback is called again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update

from supportfleet_runtime.storage import audit, signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import AGENT, DEAD, READY, callbacks, conversations, messages, tasks


@dataclass(frozen=True)
class DeadLetter:
    """A task that was given up. ``error`` is the kind of its last failure before the last try, where there was one."""

    task_id: str
    conversation_id: str
    turn: int
    queue: str
    tries: int
    error: str | None
    created_at: datetime
    died_at: datetime | None


class DeadLetters:
    """The dead letters of one agent (``scope``), whatever queue they were in."""

    def __init__(self, database: Database, scope: str, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._scope = scope
        self._now = now

    async def latest(self, limit: int) -> Sequence[DeadLetter]:
        """The latest ``limit``, the newest first."""
        columns = (tasks.c.id, tasks.c.conversation_id, tasks.c.turn, tasks.c.queue, tasks.c.tries, tasks.c.error)
        query = (
            select(*columns, tasks.c.created_at, tasks.c.finished_at)
            .where(self._is_dead())
            .order_by(tasks.c.finished_at.desc(), tasks.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [DeadLetter(*row) for row in rows]

    async def replay(self, task_ids: Sequence[str]) -> set[str]:
        """Have these worked again. Those that were dead letters; others are left alone."""
        return await self._database.write(lambda connection: self._replay(connection, task_ids))

    def _replay(self, connection: Connection, task_ids: Sequence[str]) -> set[str]:
        chosen = (
            select(tasks.c.id, tasks.c.conversation_id, tasks.c.turn, tasks.c.queue, conversations.c.customer_id)
            .join(conversations, conversations.c.id == tasks.c.conversation_id)
            .where(self._is_dead(), tasks.c.id.in_(task_ids))
            .with_for_update(of=tasks)
        )
        rows = connection.execute(chosen).all()
        if not rows:
            return set()
        turns = [(row.conversation_id, row.turn) for row in rows]
        is_reply = among("turns_", messages.c.conversation_id, messages.c.turn) & (messages.c.role == AGENT)
        connection.execute(delete(messages).where(is_reply), {"turns_": turns})
        changed = conversations.c.id.in_([row.conversation_id for row in rows])
        connection.execute(update(conversations).where(changed).values(revision=conversations.c.revision + 1))
        again = {"state": READY, "tries": 0, "finished_at": None, "error": None}
        for task_id in [row.id for row in rows]:  # under another id, so that it is no repetition to who was told
            told = {"id": new_id("cb", self._now()), "visible_at": self._now(), **again}
            connection.execute(update(callbacks).where(callbacks.c.task_id == task_id).values(told))
        ready = {**again, "visible_at": self._now()}
        connection.execute(update(tasks).where(tasks.c.id.in_([row.id for row in rows])).values(ready))
        audit.record(connection, [self._replayed(row) for row in rows])
        for queue in sorted({row.queue for row in rows}):
            signals.send(connection, signals.WORK, [queue])
        return {row.id for row in rows}

    def _replayed(self, row: Any) -> audit.Event:
        return audit.Event(
            audit.TASK_REPLAYED, self._now(), self._scope, row.customer_id, row.conversation_id, row.turn, row.id
        )

    def _is_dead(self) -> ColumnElement[bool]:
        own = select(conversations.c.id).where(conversations.c.scope == self._scope)
        return (tasks.c.state == DEAD) & tasks.c.conversation_id.in_(own)
