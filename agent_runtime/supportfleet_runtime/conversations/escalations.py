"""Calls for a person: who asked for one, why, and who took it.

::

    open ── claim ──> claimed ── resolve ──> resolved

A call is stored with the reply that made it. It refers to its conversation, which is the transcript; what the agent
tried before is kept with it. One person holds a call: claiming is a single statement that finds it open, so of many who
try at once one succeeds. Only they can answer the customer and resolve it. With its last call resolved, the
conversation is the agent's alone again, and the next time that a person is needed is a new call.

A person's message takes a turn of its own, so it stands in the conversation where it was written, and the agent is
shown it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, exists, insert, select, update

from supportfleet_runtime.agent.turn import Attempt
from supportfleet_runtime.errors import ConflictError, NotFoundError
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.schema import AGENT, CLAIMED, OPEN, RESOLVED, conversations, escalations, messages

ASKED: Final = "customer_asked"
"""The customer wants a person."""
NEEDED: Final = "person_needed"
"""What they want is a person's to decide."""
PERSON: Final = "person"
"""A reply's source, where a person wrote it."""
HUMAN: Final = "human"
"""The intent of a customer who asks for a person."""


@dataclass(frozen=True)
class Call:
    """A call for a person, in the turn that made it."""

    conversation_id: str
    customer_id: str
    turn: int
    task_id: str
    intent: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def reason(self) -> str:
        """Why."""
        return ASKED if self.intent == HUMAN else NEEDED


@dataclass(frozen=True)
class Escalation:
    """A call as it stands."""

    escalation_id: str
    conversation_id: str
    turn: int
    reason: str
    intent: str
    attempts: tuple[Attempt, ...]
    state: str
    created_at: datetime
    claimed_by: str | None
    claimed_at: datetime | None
    resolved_at: datetime | None


def call(connection: Connection, calls: Sequence[Call], scope: str, now: datetime) -> None:
    """Store calls, with the transaction of ``connection``."""
    rows = [
        {
            "id": new_id("esc", now),
            "conversation_id": one.conversation_id,
            "turn": one.turn,
            "reason": one.reason,
            "intent": one.intent,
            "attempts": [asdict(attempt) for attempt in one.attempts],
            "state": OPEN,
            "created_at": now,
        }
        for one in calls
    ]
    connection.execute(insert(escalations), rows)
    events = []
    for one, row in zip(calls, rows, strict=True):
        facts: dict[str, audit.Fact] = {"escalation_id": str(row["id"]), "reason": one.reason, "intent": one.intent}
        about = (one.customer_id, one.conversation_id, one.turn, one.task_id)
        events.append(audit.Event(audit.ESCALATED, now, scope, *about, facts))
    audit.record(connection, events)


class Escalations:
    """The calls of one agent (``scope``)."""

    def __init__(self, database: Database, scope: str, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._scope = scope
        self._now = now

    async def latest(self, limit: int, states: Collection[str] = (OPEN, CLAIMED)) -> Sequence[Escalation]:
        """Up to ``limit`` calls in these states, the longest waiting first."""
        query = self._select().where(escalations.c.state.in_(states)).order_by(escalations.c.created_at).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_escalation(row) for row in rows]

    async def claim(self, escalation_id: str, person: str) -> Escalation:
        """Take an open call; raises ``ConflictError`` where another person has it, or it is resolved."""
        return await self._database.write(lambda connection: self._claim(connection, escalation_id, person))

    async def reply(self, escalation_id: str, person: str, text: str) -> str:
        """Write to the customer of a call that this person claimed; the message's id."""
        return await self._database.write(lambda connection: self._reply(connection, escalation_id, person, text))

    async def resolve(self, escalation_id: str, person: str) -> Escalation:
        """End a call that this person claimed."""
        return await self._database.write(lambda connection: self._resolve(connection, escalation_id, person))

    def _claim(self, connection: Connection, escalation_id: str, person: str) -> Escalation:
        found = self._find(connection, escalation_id)
        taken = (
            update(escalations)
            .where(escalations.c.id == escalation_id, escalations.c.state == OPEN)
            .values(state=CLAIMED, claimed_by=person, claimed_at=self._now())
        )
        if connection.execute(taken).rowcount:
            self._record(connection, audit.ESCALATION_CLAIMED, found, person)
        else:
            self._of(self._find(connection, escalation_id), person)
        return _escalation(self._find(connection, escalation_id))

    def _reply(self, connection: Connection, escalation_id: str, person: str, text: str) -> str:
        found = self._of(self._find(connection, escalation_id, lock=True), person)
        now = self._now()
        turn = connection.execute(
            update(conversations)
            .where(conversations.c.id == found.conversation_id)
            .values(turns=conversations.c.turns + 1, updated_at=now)
            .returning(conversations.c.turns)
        ).scalar_one()
        message = {
            "conversation_id": found.conversation_id,
            "turn": turn,
            "role": AGENT,
            "id": new_id("msg", now),
            "text": text,
            "created_at": now,
            "intent": found.intent,
            "confidence": 1.0,
            "source": PERSON,
            "tools_enabled": False,
            "fallback_level": 0,
        }
        connection.execute(insert(messages), message)
        self._record(connection, audit.ESCALATION_REPLIED, found, person)
        return str(message["id"])

    def _resolve(self, connection: Connection, escalation_id: str, person: str) -> Escalation:
        found = self._of(self._find(connection, escalation_id, lock=True), person)
        now = self._now()
        ended = {"state": RESOLVED, "resolved_at": now}
        connection.execute(update(escalations).where(escalations.c.id == escalation_id).values(ended))
        others = exists().where(escalations.c.conversation_id == conversations.c.id, escalations.c.state != RESOLVED)
        own = conversations.c.id == found.conversation_id
        connection.execute(update(conversations).where(own, ~others).values(escalated_at=None))
        self._record(connection, audit.ESCALATION_RESOLVED, found, person)
        return _escalation(self._find(connection, escalation_id))

    def _of(self, found: Any, person: str) -> Any:
        """A call that this person holds, or the reason why it isn't theirs."""
        if found.state == OPEN:
            raise ConflictError("it is not claimed: claim it first")
        if found.state == RESOLVED:
            raise ConflictError("it is resolved")
        if found.claimed_by != person:
            raise ConflictError("another person has claimed it")
        return found

    def _find(self, connection: Connection, escalation_id: str, *, lock: bool = False) -> Any:
        query = self._select().where(escalations.c.id == escalation_id)
        found = connection.execute(query.with_for_update(of=escalations) if lock else query).one_or_none()
        if found is None:
            raise NotFoundError("no such escalation")
        return found

    def _select(self) -> Select[Any]:
        return (
            select(escalations, conversations.c.customer_id)
            .join(conversations, conversations.c.id == escalations.c.conversation_id)
            .where(conversations.c.scope == self._scope)
        )

    def _record(self, connection: Connection, name: str, found: Any, person: str) -> None:
        about = (found.customer_id, found.conversation_id, found.turn)
        facts: dict[str, audit.Fact] = {"escalation_id": found.id, "person": person}
        audit.record(connection, [audit.Event(name, self._now(), self._scope, *about, facts=facts)])


def _escalation(row: Any) -> Escalation:
    return Escalation(
        escalation_id=row.id,
        conversation_id=row.conversation_id,
        turn=row.turn,
        reason=row.reason,
        intent=row.intent,
        attempts=tuple(Attempt(**attempt) for attempt in row.attempts),
        state=row.state,
        created_at=row.created_at,
        claimed_by=row.claimed_by,
        claimed_at=row.claimed_at,
        resolved_at=row.resolved_at,
    )
