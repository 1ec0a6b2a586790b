"""Where a customer's data is: every table that holds some, and what becomes of it when it has to go.

A table that names a customer or a conversation is in ``HOLDINGS`` (a test sees to that). Its rows go

- *with the conversation*: they refer to it, or to its task, by a foreign key that removes them;
- *by the customer*: the table names the customer, and its rows are removed;
- not at all: what happened must stay on record. The customer's id becomes a pseudonym, and what else could tell who it
  was is blanked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import (
    LEASED,
    audit_log,
    callbacks,
    conversations,
    erasures,
    escalations,
    idempotency_keys,
    long_tasks,
    messages,
    metadata,
    tasks,
)
from supportfleet_runtime.storage.tool_tables import address_changes, effects, refunds, tickets, tool_effects

ERASED_OUTCOME: Final = '{"status": "refused", "message": "This was erased."}'
"""What a repetition of a tool's call is told afterwards."""
MANY: Final = 500
"""Rows of one table that are changed in one transaction."""


Forget = Callable[[Sequence[str]], Awaitable[None]]
"""Has the cache drop these conversations."""


async def forget_nothing(_conversation_ids: Sequence[str]) -> None:
    """Do so where there is no cache."""


class Fate(StrEnum):
    """What becomes of a customer's rows."""

    WITH_CONVERSATION = "with the conversation"
    REMOVED = "removed"
    PSEUDONYM = "pseudonym"
    ERASURE = "erasure"
    """It is what the erasure itself works with."""


@dataclass(frozen=True)
class Holding:
    """A table with customers' data. ``blanked``: the columns that are, with what they get, where the row stays."""

    table: Table
    fate: Fate
    blanked: Mapping[str, Any] = field(default_factory=dict)


HOLDINGS: Final[Sequence[Holding]] = (
    Holding(conversations, Fate.WITH_CONVERSATION),
    Holding(messages, Fate.WITH_CONVERSATION),
    Holding(tasks, Fate.WITH_CONVERSATION),
    Holding(long_tasks, Fate.WITH_CONVERSATION),
    Holding(callbacks, Fate.WITH_CONVERSATION),
    Holding(escalations, Fate.WITH_CONVERSATION),
    Holding(tickets, Fate.REMOVED),
    Holding(address_changes, Fate.REMOVED),
    Holding(refunds, Fate.PSEUDONYM, {"reason": ""}),
    Holding(effects, Fate.PSEUDONYM, {"outcome": ERASED_OUTCOME}),
    Holding(tool_effects, Fate.PSEUDONYM, {"outcome": ERASED_OUTCOME}),
    Holding(idempotency_keys, Fate.WITH_CONVERSATION),
    Holding(audit_log, Fate.PSEUDONYM),
    Holding(erasures, Fate.ERASURE),
)


def remove_conversations(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Remove conversations with all that goes with them; how many rows of which table."""
    going = {holding.table for holding in HOLDINGS if holding.fate is Fate.WITH_CONVERSATION}
    removed: dict[str, int] = {}
    for table in reversed(metadata.sorted_tables):  # what refers to others goes before them
        if table in going:
            removed[str(table.name)] = connection.execute(delete(table).where(_of(table, ids))).rowcount
    return removed


def leased_until(connection: Connection, ids: Sequence[str]) -> datetime | None:
    """Until when a worker may be at something of these conversations; their work is locked."""
    moments: list[datetime] = []
    for table in (tasks, long_tasks, callbacks):
        query = select(table.c.visible_at).where(_of(table, ids), table.c.state == LEASED).with_for_update()
        moments += connection.execute(query).scalars()
    return max(moments, default=None)


def _of(table: Table, ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether a row belongs to these conversations: is one, refers to one, or to a task of one."""
    if table is conversations:
        return conversations.c.id.in_(ids)
    referring = {key.column.table: key.parent for key in table.foreign_keys}
    if conversations in referring:
        return referring[conversations].in_(ids)
    return referring[tasks].in_(select(tasks.c.id).where(tasks.c.conversation_id.in_(ids)))


def remove_rows(connection: Connection, table: Table, scope: str, customer_id: str) -> int:
    """Remove some of a customer's rows; how many."""
    chosen = _some(connection, table, scope, customer_id)
    return connection.execute(delete(table).where(_is_chosen(table)), {"keys_": chosen}).rowcount if chosen else 0


def replace_customer(connection: Connection, holding: Holding, scope: str, customer_id: str, pseudonym: str) -> int:
    """Put the pseudonym into some of a customer's rows; how many."""
    table = holding.table
    chosen = _some(connection, table, scope, customer_id)
    if not chosen:
        return 0
    values = {"customer_id": pseudonym, **holding.blanked}
    return connection.execute(update(table).where(_is_chosen(table)).values(values), {"keys_": chosen}).rowcount


def redact_audit_log(
    connection: Connection, scope: str, customer_id: str, pseudonym: str, after: int
) -> tuple[int, int | None]:
    """Put the pseudonym into the audit log's next rows: how many, and where to go on; ``None`` at the end."""
    last = connection.execute(select(func.max(audit_log.c.id))).scalar() or 0
    until = after + 10 * MANY
    in_reach = audit_log.c.id.between(after + 1, until)
    own = (audit_log.c.scope == scope) & (audit_log.c.customer_id == customer_id)
    changed = connection.execute(update(audit_log).where(in_reach, own).values(customer_id=pseudonym)).rowcount
    return changed, until if until < last else None


def _some(connection: Connection, table: Table, scope: str, customer_id: str) -> Sequence[Any]:
    query = select(*table.primary_key.columns).where(table.c.scope == scope, table.c.customer_id == customer_id)
    return [tuple(row) for row in connection.execute(query.limit(MANY).with_for_update())]


def _is_chosen(table: Table) -> ColumnElement[bool]:
    return among("keys_", *table.primary_key.columns)
