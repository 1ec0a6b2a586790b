"""Reading conversations and tasks for their customers; any process can."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Select, and_, or_, select

from supportfleet_runtime.agent.classifier import OTHER
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.conversations.records import (
    CallbackRecord,
    CallbackState,
    ConversationRecord,
    Deferred,
    Long,
    MessageRecord,
    Outcome,
    Reply,
    TaskRecord,
    TaskState,
)
from supportfleet_runtime.errors import NotFoundError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import (
    AGENT,
    CUSTOMER,
    DEAD,
    DONE,
    LEASED,
    LONG,
    READY,
    callbacks,
    conversations,
    long_tasks,
    messages,
    tasks,
)

STATES: Mapping[str, TaskState] = {READY: "queued", LEASED: "running", DONE: "done", DEAD: "failed"}
_CALLBACK_STATES: Mapping[str, CallbackState] = {
    READY: "waiting",
    LEASED: "delivering",
    DONE: "delivered",
    DEAD: "failed",
}


class Views:
    """What is known of one agent's conversations (``scope``)."""

    def __init__(self, database: Database, scope: str) -> None:
        self._database = database
        self._scope = scope

    async def conversation(self, conversation_id: str, customer_id: str | None, turns: int) -> ConversationRecord:
        """A conversation with its latest ``turns``; another customer's, or another agent's, is not found."""
        wanted = [conversations.c.id == conversation_id, conversations.c.scope == self._scope]
        if customer_id is not None:
            wanted.append(conversations.c.customer_id == customer_id)
        latest = (
            select(messages)
            .where(messages.c.conversation_id == conversation_id)
            .order_by(messages.c.turn.desc(), messages.c.role)
            .limit(2 * turns)
        )

        def query(connection: Connection) -> tuple[Any, Sequence[Any]]:
            conversation = connection.execute(select(conversations).where(*wanted)).one_or_none()
            return conversation, connection.execute(latest).all() if conversation else ()

        found, rows = await self._database.read(query)
        if found is None:
            raise NotFoundError("no such conversation")
        escalated = found.escalated_at is not None
        shown = [row for row in reversed(rows) if row.turn > found.turns - turns]
        return ConversationRecord(
            conversation_id=found.id,
            customer_id=found.customer_id,
            escalated=escalated,
            created_at=found.created_at,
            updated_at=found.updated_at,
            messages=tuple(_message(row, escalated=escalated) for row in shown),
            has_earlier=found.turns > turns,
        )

    async def pending(self, conversation_id: str) -> Pending | None:
        """The question that the agent waits to have answered."""
        query = select(conversations.c.pending_intent, conversations.c.pending_asked).where(
            conversations.c.id == conversation_id, conversations.c.scope == self._scope
        )
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        return Pending(row.pending_intent, row.pending_asked or 1) if row and row.pending_intent else None

    async def task(self, task_id: str, customer_id: str | None) -> TaskRecord:
        """A task, with its reply once it ended."""
        query = (
            _tasks(*_LONG_COLUMNS, *_CALLBACK_COLUMNS)
            .outerjoin(long_tasks, long_tasks.c.id == tasks.c.id)
            .outerjoin(callbacks, callbacks.c.task_id == tasks.c.id)
            .where(tasks.c.id == task_id, conversations.c.scope == self._scope)
        )
        if customer_id is not None:
            query = query.where(conversations.c.customer_id == customer_id)
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFoundError("no such task")
        return TaskRecord(
            task_id=row.task_id,
            conversation_id=row.conversation_id,
            message_id=row.message_id,
            state=STATES[row.long_state or row.state],
            created_at=row.task_created_at,
            finished_at=row.finished_at,
            reply=None if row.text is None else stored_reply(row, escalated=row.escalated_at is not None),
            long=None if row.long_state is None else _long(row),
            callback=None if row.callback_kind is None else _callback(row),
        )

    async def replies(self, task_ids: Collection[str]) -> Mapping[str, Outcome]:
        """The replies of those tasks that have one, and which tasks take long."""
        values = {"tasks_": list(task_ids)}
        rows = await self._database.read(lambda connection: connection.execute(_REPLIES, values).all())
        return {
            row.task_id: Deferred(OTHER)
            if row.text is None
            else stored_reply(row, escalated=row.escalated_at is not None)
            for row in rows
        }


_LONG_COLUMNS = (long_tasks.c.state.label("long_state"), long_tasks.c.progress, long_tasks.c.result)

_CALLBACK_COLUMNS = tuple(
    callbacks.c[name].label(f"callback_{name}") for name in ("kind", "state", "tries", "error", "finished_at")
)


def _tasks(*more: Any) -> Select[Any]:
    """Tasks with their customer's message and the agent's reply, where there is one."""
    asked = messages.alias("asked")
    return (
        select(
            tasks.c.id.label("task_id"),
            tasks.c.conversation_id,
            asked.c.id.label("message_id"),
            tasks.c.state,
            tasks.c.created_at.label("task_created_at"),
            tasks.c.finished_at,
            conversations.c.escalated_at,
            *(messages.c[name] for name in ("text", "intent", "confidence", "source", "model")),
            messages.c.tools_enabled,
            messages.c.fallback_level,
            *more,
        )
        .join(conversations, conversations.c.id == tasks.c.conversation_id)
        .join(asked, _of_turn(asked, CUSTOMER))
        .outerjoin(messages, _of_turn(messages, AGENT))
    )


def _long(row: Any) -> Long:
    return Long(row.progress, orjson.loads(row.result) if row.result and row.long_state == DONE else None)


def _callback(row: Any) -> CallbackRecord:
    return CallbackRecord(
        kind=row.callback_kind,
        state=_CALLBACK_STATES[row.callback_state],
        tries=row.callback_tries,
        error=row.callback_error,
        finished_at=row.callback_finished_at,
    )


def _of_turn(table: Any, role: str) -> Any:
    return and_(table.c.conversation_id == tasks.c.conversation_id, table.c.turn == tasks.c.turn, table.c.role == role)


_REPLIES = _tasks().where(among("tasks_", tasks.c.id), or_(messages.c.text.is_not(None), tasks.c.state == LONG))


def _message(row: Any, *, escalated: bool) -> MessageRecord:
    return MessageRecord(
        message_id=row.id,
        turn=row.turn,
        role=row.role,
        text=row.text,
        created_at=row.created_at,
        reply=stored_reply(row, escalated=escalated) if row.role == AGENT else None,
    )


def stored_reply(row: Any, *, escalated: bool) -> Reply:
    """A reply from its row of ``messages``."""
    return Reply(
        text=row.text,
        intent=row.intent,
        confidence=row.confidence,
        source=row.source,
        model=row.model,
        tools_enabled=row.tools_enabled,
        fallback_level=row.fallback_level,
        escalated=escalated,
    )
