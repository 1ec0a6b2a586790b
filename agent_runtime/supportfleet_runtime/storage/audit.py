"""The audit log: who had what done, when, in rows that are only ever added.

A row is written in the transaction of what it records, so the one is never there without the other. It says which
message of which customer it is about, and facts such as the intent, the model or an amount: never what was written.
The rows of a transaction go in with one statement.

The database itself refuses to change or remove a row (triggers, in the migration), with one exception: while a
customer's erasure is under way (a row of ``erasures``), their id may be replaced by that erasure's pseudonym. So what
was done stays on record, and for whom can't be told any more. The rows have no index but their number: they are
written with each message and looked for rarely, so looking goes through them in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, insert

from supportfleet_runtime.storage.schema import audit_log

MESSAGE_ACCEPTED: Final = "message_accepted"
"""A customer's message was stored, and so accepted."""
MESSAGE_ANSWERED: Final = "message_answered"
"""It was answered: by whom, with which intent, model and level."""
ESCALATED: Final = "escalated"
"""A person was called."""
ESCALATION_CLAIMED: Final = "escalation_claimed"
"""A person took a call."""
ESCALATION_REPLIED: Final = "escalation_replied"
"""They wrote to the customer."""
ESCALATION_RESOLVED: Final = "escalation_resolved"
"""They ended it."""
TASK_DEAD: Final = "task_dead"
"""A message was given up after its tries; its customer got the generic reply."""
TASK_REPLAYED: Final = "task_replayed"
"""It was handed to the workers once more."""
EFFECT_SETTLED: Final = "effect_settled"
"""A tool that changes something was called: which, and whether it was done, refused, or nobody knows."""
EFFECT_RESOLVED: Final = "effect_resolved"
"""A person said whether something was done that nobody knew of."""
CUSTOMER_ERASED: Final = "customer_erased"
"""A customer's data was removed; how much of what."""
CONVERSATIONS_EXPIRED: Final = "conversations_expired"
"""Conversations that nobody had added to for RETENTION_DAYS were removed; how many."""

Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Event:
    """Something that happened; its fields are the table's columns. ``facts`` hold no secret and no one's words."""

    event: str
    at: datetime
    scope: str
    customer_id: str | None = None
    conversation_id: str | None = None
    turn: int | None = None
    task_id: str | None = None
    facts: dict[str, Fact] = field(default_factory=dict)


def record(connection: Connection, events: Sequence[Event]) -> None:
    """Add these, with the transaction of ``connection``."""
    if events:
        connection.execute(_INSERT, [vars(event) for event in events])


_INSERT = insert(audit_log).inline()  # nobody asks for the number that a row got
