"""What is new in a conversation, for who watches it: replies beyond a position, and the tasks that are not done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, func, select

from supportfleet_runtime.conversations.records import Reply, TaskState
from supportfleet_runtime.conversations.turn_set import TurnSet, up_to
from supportfleet_runtime.conversations.views import STATES, stored_reply
from supportfleet_runtime.errors import NotFoundError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import (
    AGENT,
    LEASED,
    LONG,
    READY,
    conversations,
    long_tasks,
    messages,
    tasks,
)

OPEN: Final = (READY, LEASED, LONG)
MOST_OPEN: Final = 100
"""How many of a conversation's unfinished tasks are told of, the oldest."""


@dataclass(frozen=True)
class StoredReply:
    """A reply in its place. A person's has no task."""

    turn: int
    message_id: str
    task_id: str | None
    created_at: datetime
    reply: Reply


@dataclass(frozen=True)
class OpenTask:
    """A task that is not done. ``progress`` is there where it takes long."""

    turn: int
    task_id: str
    state: TaskState
    progress: int | None


class Updates:
    """What is new in one agent's (``scope``) conversations."""

    def __init__(self, database: Database, scope: str) -> None:
        self._database = database
        self._scope = scope

    async def position(self, conversation_id: str, customer_id: str | None) -> tuple[str, TurnSet]:
        """The conversation's customer, and the turns that have had their replies; not found as in ``Views``."""
        wanted = [conversations.c.id == conversation_id, conversations.c.scope == self._scope]
        if customer_id is not None:
            wanted.append(conversations.c.customer_id == customer_id)
        query = select(conversations.c.customer_id, conversations.c.turns).where(*wanted)

        def read(connection: Connection) -> tuple[Any, Sequence[Any]]:
            found = connection.execute(query).one_or_none()
            return found, connection.execute(_OPEN_TURNS, {"id_": conversation_id}).all() if found else ()

        found, unfinished = await self._database.read(read)
        if found is None:
            raise NotFoundError("no such conversation")
        return found.customer_id, up_to(found.turns).without(row.turn for row in unfinished)

    async def before(self, conversation_id: str, task_id: str) -> TurnSet:
        """The turns that have had their replies, without the task's own: that is still to be told."""
        _, told = await self.position(conversation_id, None)
        turn = await self._database.read(lambda c: c.execute(_TURN, {"id_": task_id}).scalar_one_or_none())
        if turn is None:
            raise NotFoundError("no such task")
        return told.without([turn])

    async def since(self, conversation_id: str, seen: TurnSet, limit: int) -> tuple[list[StoredReply], list[OpenTask]]:
        """Replies that are not ``seen``, up to ``limit``, and the tasks that have none yet; both in their order."""
        replies = _replies(conversation_id, seen, limit)

        def read(connection: Connection) -> tuple[Sequence[Any], Sequence[Any]]:
            return connection.execute(replies).all(), connection.execute(_OPEN_TASKS, {"id_": conversation_id}).all()

        found, unfinished = await self._database.read(read)
        return [
            StoredReply(
                row.turn, row.id, row.task_id, row.created_at, stored_reply(row, escalated=row.escalated_at is not None)
            )
            for row in found
        ], [OpenTask(row.turn, row.id, STATES[row.long_state or row.state], row.progress) for row in unfinished]

    async def marks(self, conversation_ids: Collection[str]) -> Mapping[str, Any]:
        """For each conversation what is another value after a change."""
        values = {"ids_": list(conversation_ids)}
        rows = await self._database.read(lambda connection: connection.execute(_MARKS, values).all())
        return {row.id: (row.turns, row.updated_at, row.progress) for row in rows}


def _replies(conversation_id: str, seen: TurnSet, limit: int) -> Select[Any]:
    is_task = and_(tasks.c.conversation_id == messages.c.conversation_id, tasks.c.turn == messages.c.turn)
    later = [~messages.c.turn.between(first, last) for first, last in seen.ranges if first > seen.floor]
    return (
        select(messages, tasks.c.id.label("task_id"), conversations.c.escalated_at)
        .join(conversations, conversations.c.id == messages.c.conversation_id)
        .outerjoin(tasks, is_task)
        .where(
            messages.c.conversation_id == conversation_id,
            messages.c.turn > seen.floor,
            messages.c.role == AGENT,
            *later,
        )
        .order_by(messages.c.turn)
        .limit(limit)
    )


_OPEN_TURNS = select(tasks.c.turn).where(tasks.c.conversation_id == bindparam("id_"), tasks.c.state.in_(OPEN))
_TURN = select(tasks.c.turn).where(tasks.c.id == bindparam("id_"))
_OPEN_TASKS = (
    select(tasks.c.turn, tasks.c.id, tasks.c.state, long_tasks.c.state.label("long_state"), long_tasks.c.progress)
    .outerjoin(long_tasks, long_tasks.c.id == tasks.c.id)
    .where(tasks.c.conversation_id == bindparam("id_"), tasks.c.state.in_(OPEN))
    .order_by(tasks.c.turn)
    .limit(MOST_OPEN)
)
_MARKS = (
    select(
        conversations.c.id,
        conversations.c.turns,
        conversations.c.updated_at,
        func.sum(long_tasks.c.progress).label("progress"),
    )
    .outerjoin(tasks, and_(tasks.c.conversation_id == conversations.c.id, tasks.c.state == LONG))
    .outerjoin(long_tasks, long_tasks.c.id == tasks.c.id)
    .where(among("ids_", conversations.c.id))
    .group_by(conversations.c.id)
)
