"""A worker's side of a conversation: reading a turn with its history, and storing its answer.

The answer, the conversation's new state, the end of the lease and what the audit log says of it are one transaction; a
worker that lost its lease in the meantime stores nothing. Turns that are read or stored at the same time share a query
or a transaction. A turn whose answer takes long is put into the long lane by that transaction, instead of a reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import (
    Case,
    Column,
    ColumnElement,
    Connection,
    Executable,
    Select,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    select,
    update,
)

from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.turn import Answer, Exchange, Turn
from supportfleet_runtime.conversations import escalations
from supportfleet_runtime.conversations.memory import Memory, said_with
from supportfleet_runtime.conversations.records import Deferred, Outcome, Reply
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.errors import NotFoundError
from supportfleet_runtime.queue.long_lane import LongLane
from supportfleet_runtime.queue.port import Lease, Leases
from supportfleet_runtime.storage import audit, signals
from supportfleet_runtime.storage.batcher import Batcher
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import AGENT, CUSTOMER, conversations, messages, tasks


@dataclass(frozen=True)
class Answered:
    """A turn and its answer. ``dead``: the task was given up, and the answer is the generic one."""

    lease: Lease
    turn: Turn
    answer: Answer
    dead: bool = False

    @property
    def reply(self) -> Reply:
        """The answer as the customer is told it."""
        return reply_of(self.answer, self.turn)

    @property
    def outcome(self) -> Outcome:
        """What a request that waits is told."""
        return Deferred(self.answer.intent) if self.answer.later else self.reply


def reply_of(answer: Answer, turn: Turn) -> Reply:
    """The answer to a turn as its customer is told it."""
    return Reply(
        text=answer.text,
        intent=answer.intent,
        confidence=answer.confidence,
        source=answer.source.value,
        model=answer.model,
        tools_enabled=answer.tools_enabled,
        fallback_level=answer.fallback_level,
        escalated=answer.escalate or turn.escalated,
    )


class Turns:
    """Turns of one agent's (``scope``) conversations, worked from ``queue``. An agent is shown ``window`` earlier ones.

    Answers that take long go to ``long_lane``. The long lane's own answers (``late``) come when the conversation may
    have gone on: they ask a question only where it has not.
    """

    def __init__(
        self,
        database: Database,
        queue: Leases,
        waiters: Waiters,
        *,
        scope: str,
        window: Callable[[], int],
        now: Callable[[], datetime],
        long_lane: LongLane | None = None,
        late: bool = False,
        watching: Watching | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory
        self._scope = scope
        self._database = database
        self._queue = queue
        self._waiters = waiters
        self._window = window
        self._now = now
        self._long_lane = long_lane
        self._watching = watching
        self._update_conversation = _UPDATE_LATE if late else _UPDATE_CONVERSATION
        self._reader: Batcher[str, Turn] = Batcher(self._load)
        self._writer: Batcher[Answered, bool] = Batcher(self._store)

    async def load(self, task_id: str) -> Turn:
        """The turn of a task."""
        return await self._reader.submit(task_id)

    async def store(self, answered: Answered) -> bool:
        """Store an answer and end its lease; false where the lease was lost, and nothing is stored."""
        return await self._writer.submit(answered)

    async def _load(self, task_ids: Sequence[str]) -> Sequence[Turn | Exception]:
        values = {"tasks_": list(task_ids)}
        rows = await self._database.read(lambda connection: connection.execute(_LOAD, values).all())
        window = self._window()
        histories = await self._histories([row for row in rows if row.number > 1], window) if window else {}
        turns = {str(row.task_id): _turn(row, histories.get(row.task_id, ())) for row in rows}
        return [turns.get(task_id) or NotFoundError(f"no such task: {task_id}") for task_id in task_ids]

    async def _histories(self, rows: Sequence[Any], window: int) -> Mapping[str, tuple[Exchange, ...]]:
        """What each of these tasks' turns is shown, from memory as far as it is known there."""
        found: dict[str, tuple[Exchange, ...]] = {}
        known = await self._memory.get([row.conversation_id for row in rows]) if self._memory and rows else {}
        for row in rows:
            said = known.get(row.conversation_id)
            history = said.before(row.number, row.revision, window) if said else None
            if history is not None:
                found[row.task_id] = history
        missing = [row.task_id for row in rows if row.task_id not in found]
        if missing:
            values = {"tasks_": missing, "window_": window}
            earlier = await self._database.read(lambda connection: connection.execute(_LOAD_EARLIER, values).all())
            for task_id, group in groupby(earlier, key=lambda row: str(row.task_id)):
                found[task_id] = exchanges({(row.turn, row.role): str(row.text) for row in group})
        return found

    async def _store(self, batch: Sequence[Answered]) -> Sequence[bool | Exception]:
        held = await self._database.write(lambda connection: self._insert(connection, batch))
        for item in batch:
            if item.lease.id in held:
                self._waiters.resolve(item.lease.id, item.outcome)
        if self._watching:
            self._watching.changed(item.turn.conversation_id for item in batch)
        self._remember([item for item in batch if item.lease.id in held and not item.answer.later])
        return [item.lease.id in held for item in batch]

    def _remember(self, stored: Sequence[Answered]) -> None:
        if self._memory is not None:
            window = self._window()
            said = {item.turn.conversation_id: said_with(item.turn, item.answer.text, window) for item in stored}
            self._memory.put({id_: one for id_, one in said.items() if one is not None})

    def _insert(self, connection: Connection, batch: Sequence[Answered]) -> set[str]:
        """Store the answers whose leases are still held; their tasks."""
        now = self._now()
        held = self._queue.ack(connection, [item.lease for item in batch if not item.dead])
        held |= self._queue.ack(connection, [item.lease for item in batch if item.dead], dead=True)
        stored = [item for item in batch if item.lease.id in held]
        if stored:
            replied = [item for item in stored if not item.answer.later]
            if replied:
                connection.execute(_INSERT_REPLY, [_message(item, now) for item in replied])
            if len(replied) < len(stored):
                self._defer(connection, [item for item in stored if item.answer.later])
            # Rows are locked in the same order everywhere, so that two processes can't wait for each other.
            stored.sort(key=lambda item: item.turn.conversation_id)
            connection.execute(self._update_conversation, [_conversation(item, now) for item in stored])
            elsewhere = [item.lease.id for item in stored if item.lease.id not in self._waiters]
            signals.send(connection, signals.DONE, elsewhere)
            if self._watching:
                watched = self._watching.elsewhere(item.turn.conversation_id for item in stored)
                signals.send(connection, signals.CHANGED, watched)
            calls = [_call(item) for item in replied if item.answer.escalate and not item.turn.escalated]
            if calls:
                escalations.call(connection, calls, self._scope, now)
            audit.record(connection, [event for item in replied for event in _events(item, self._scope, now)])
        return held

    def _defer(self, connection: Connection, items: Sequence[Answered]) -> None:
        if self._long_lane is None:
            raise TypeError("an answer that takes long, and no long lane to put it in")
        asked = [(item.lease.id, item.turn.pending) for item in items]
        self._long_lane.add(connection, [(id_, (it.intent, it.asked) if it else None) for id_, it in asked])


def _conversation(item: Answered, now: datetime) -> dict[str, Any]:
    pending = item.answer.pending
    return {
        "key_": item.turn.conversation_id,
        "number_": item.turn.number,
        "intent_": pending.intent if pending else None,
        "asked_": pending.asked if pending else None,
        "escalated_": now if item.answer.escalate else None,
        "now_": now,
    }


def _call(item: Answered) -> escalations.Call:
    turn, answer = item.turn, item.answer
    return escalations.Call(
        turn.conversation_id, turn.customer_id, turn.number, turn.task_id, answer.intent, answer.attempts
    )


def _events(item: Answered, scope: str, now: datetime) -> Iterator[audit.Event]:
    """What the audit log says of an answer."""
    turn, reply = item.turn, item.reply

    def event(name: str, **facts: audit.Fact) -> audit.Event:
        return audit.Event(name, now, scope, turn.customer_id, turn.conversation_id, turn.number, turn.task_id, facts)

    yield event(
        audit.MESSAGE_ANSWERED,
        intent=reply.intent,
        source=reply.source,
        model=reply.model,
        tools_enabled=reply.tools_enabled,
        fallback_level=reply.fallback_level,
    )
    if item.dead:
        yield event(audit.TASK_DEAD, tries=item.lease.tries)


def _message(item: Answered, now: datetime) -> dict[str, Any]:
    reply = item.reply
    return {
        "conversation_id": item.turn.conversation_id,
        "turn": item.turn.number,
        "role": AGENT,
        "id": new_id("msg", now),
        "text": reply.text,
        "created_at": now,
        "intent": reply.intent,
        "confidence": reply.confidence,
        "source": reply.source,
        "model": reply.model,
        "tools_enabled": reply.tools_enabled,
        "fallback_level": reply.fallback_level,
    }


def _turn(row: Any, history: tuple[Exchange, ...]) -> Turn:
    pending = Pending(row.pending_intent, row.pending_asked or 1) if row.pending_intent else None
    return Turn(
        task_id=row.task_id,
        conversation_id=row.conversation_id,
        customer_id=row.customer_id,
        number=row.number,
        text=row.text,
        received_at=row.received_at,
        history=history,
        pending=pending,
        escalated=row.escalated_at is not None,
        has_later=row.turns > row.number,
        revision=row.revision,
    )


def exchanges(said: Mapping[tuple[int, str], str]) -> tuple[Exchange, ...]:
    """The turns of messages, given by turn and role.

    A person's message is a turn without a question: it adds to the reply before it.
    """
    found: list[Exchange] = []
    for turn in sorted({turn for turn, _ in said}):
        asked, reply = said.get((turn, CUSTOMER)), said.get((turn, AGENT))
        if asked is not None:
            found.append(Exchange(asked, reply, turn))
        elif found and reply is not None:
            last = found.pop()
            found.append(Exchange(last.text, f"{last.reply}\n\n{reply}" if last.reply else reply, last.number))
    return tuple(found)


def _of_tasks(*columns: ColumnElement[Any], joined: ColumnElement[bool]) -> Select[Any]:
    return (
        select(tasks.c.id.label("task_id"), *columns)
        .join(conversations, conversations.c.id == tasks.c.conversation_id)
        .join(messages, and_(messages.c.conversation_id == conversations.c.id, joined))
        .where(among("tasks_", tasks.c.id))
    )


_LOAD = _of_tasks(
    tasks.c.turn.label("number"),
    tasks.c.created_at.label("received_at"),
    conversations.c.id.label("conversation_id"),
    conversations.c.customer_id,
    conversations.c.turns,
    conversations.c.pending_intent,
    conversations.c.pending_asked,
    conversations.c.escalated_at,
    conversations.c.revision,
    messages.c.text,
    joined=and_(messages.c.turn == tasks.c.turn, messages.c.role == literal(CUSTOMER, literal_execute=True)),
)
"""Tasks with their conversation and the message to be answered."""
_LOAD_EARLIER = _of_tasks(
    messages.c.turn,
    messages.c.role,
    messages.c.text,
    joined=messages.c.turn.between(tasks.c.turn - bindparam("window_"), tasks.c.turn - 1),
).order_by(tasks.c.id, messages.c.turn)
"""The messages before it, in its window: one row for each."""
_INSERT_REPLY = insert(messages)


def _update_conversation(pending_intent: Any, pending_asked: Any, **more: Any) -> Executable:
    return (
        update(conversations)
        .where(conversations.c.id == bindparam("key_"))
        .values(
            pending_intent=pending_intent,
            pending_asked=pending_asked,
            escalated_at=func.coalesce(conversations.c.escalated_at, bindparam("escalated_")),
            updated_at=bindparam("now_"),
            **more,
        )
    )


def _unless_gone_on(name: str, column: Column[Any]) -> Case[Any]:
    return case((conversations.c.turns == bindparam("number_"), bindparam(name, type_=column.type)), else_=column)


_UPDATE_CONVERSATION = _update_conversation(bindparam("intent_"), bindparam("asked_"))
_UPDATE_LATE = _update_conversation(
    _unless_gone_on("intent_", conversations.c.pending_intent),
    _unless_gone_on("asked_", conversations.c.pending_asked),
    revision=conversations.c.revision + 1,
)
