"""Erasing one customer: everything that tells of them, in small steps that can be interrupted at any point.

The erasure is written down first, with a random pseudonym; one that was interrupted is found again by it and goes on.
Then rounds are made until one finds nothing:

1. conversations with all that belongs to them are removed, a few in each transaction, and forgotten by the cache;
2. rows that name the customer are removed, or get the pseudonym where what happened must stay on record.

A message under way can't outlast this. One that is being accepted either commits before a round, and goes with it, or
finds its conversation gone. A worker that answers one has lost its lease with the task, so its transaction stores
nothing; but until it notices (a third of a lease) its tools may still write of the customer. So after removing a task
that a worker held, the erasure waits until that lease would have run out, and makes another round.

At the end the erasure forgets the customer's id, which closes the audit log's door for pseudonyms. What nothing was
found for leaves no trace at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.personal_data import (
    HOLDINGS,
    Fate,
    Forget,
    forget_nothing,
    leased_until,
    redact_audit_log,
    remove_conversations,
    remove_rows,
    replace_customer,
)
from supportfleet_runtime.storage.schema import audit_log, conversations, erasures

CONVERSATIONS_AT_ONCE: Final = 50
ROUNDS: Final = 20
"""After so many rounds that found something the customer is taken to be writing all the time."""


@dataclass(frozen=True)
class Erased:
    """What was done: rows by table. ``finished``: nothing is left."""

    removed: Mapping[str, int]
    pseudonymised: Mapping[str, int]
    finished: bool
    pseudonym: str | None


class Erasure:
    """Erases customers of one agent (``scope``).

    ``forget`` has the cache drop conversations; ``settle`` is how many seconds a worker may take to write what it has
    committed into that cache.
    """

    def __init__(
        self,
        database: Database,
        scope: str,
        *,
        now: Callable[[], datetime],
        pause: Callable[[float], Awaitable[None]],
        forget: Forget = forget_nothing,
        settle: float = 0.0,
    ) -> None:
        self._settle = settle
        self._database = database
        self._scope = scope
        self._now = now
        self._pause = pause
        self._forget = forget

    async def erase(self, customer_id: str) -> Erased:
        """Erase a customer."""
        pseudonym, goes_on = await self._database.write(lambda connection: self._begin(connection, customer_id))
        removed: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        for _ in range(ROUNDS):
            before = (removed.total(), replaced.total())
            held_until = await self._remove_conversations(customer_id, removed)
            await self._remove_rows(customer_id, removed)
            await self._replace(customer_id, pseudonym, replaced)
            if held_until is not None:
                await self._pause(max(0.0, (held_until - self._now()).total_seconds()))
            elif before == (removed.total(), replaced.total()):
                if not (removed or replaced or goes_on):
                    await self._database.write(lambda connection: connection.execute(_DROP, {"id_": pseudonym}))
                    return Erased(removed, replaced, finished=True, pseudonym=None)
                await self._database.write(lambda connection: self._end(connection, pseudonym, removed))
                return Erased(removed, replaced, finished=True, pseudonym=pseudonym)
        return Erased(removed, replaced, finished=False, pseudonym=pseudonym)

    def _begin(self, connection: Connection, customer_id: str) -> tuple[str, bool]:
        """The pseudonym, and whether it is that of an erasure which was interrupted."""
        row = {
            "id": new_id("erased", self._now()),
            "scope": self._scope,
            "customer_id": customer_id,
            "started_at": self._now(),
        }
        connection.execute(_BEGIN[connection.dialect.name], row)
        under_way = (erasures.c.scope == self._scope) & (erasures.c.customer_id == customer_id)
        pseudonym = str(connection.execute(select(erasures.c.id).where(under_way)).scalar_one())
        return pseudonym, pseudonym != row["id"]

    async def _remove_conversations(self, customer_id: str, removed: Counter[str]) -> datetime | None:
        """Remove them all; until when a worker may still work on one of them."""
        held_until: datetime | None = None
        gone: list[str] = []
        while ids := await self._database.read(lambda connection: self._find_some(connection, customer_id)):
            await self._forget(ids)  # first: what can't be forgotten is not lost sight of
            ids, counts, held = await self._database.write(
                lambda connection: self._remove_some(connection, customer_id)
            )
            gone += ids
            removed.update({table: count for table, count in counts.items() if count})
            held_until = max((moment for moment in (held_until, held) if moment), default=None)
        if gone and self._settle:
            await self._pause(self._settle)
        for start in range(0, len(gone), CONVERSATIONS_AT_ONCE):
            await self._forget(gone[start : start + CONVERSATIONS_AT_ONCE])
        return held_until

    def _remove_some(
        self, connection: Connection, customer_id: str
    ) -> tuple[Sequence[str], dict[str, int], datetime | None]:
        ids = self._find_some(connection, customer_id, lock=True)
        if not ids:
            return (), {}, None
        held_until = leased_until(connection, ids)
        return ids, remove_conversations(connection, ids), held_until

    def _find_some(self, connection: Connection, customer_id: str, *, lock: bool = False) -> Sequence[str]:
        own = (conversations.c.scope == self._scope) & (conversations.c.customer_id == customer_id)
        query = select(conversations.c.id).where(own).order_by(conversations.c.id).limit(CONVERSATIONS_AT_ONCE)
        return connection.execute(query.with_for_update() if lock else query).scalars().all()

    async def _remove_rows(self, customer_id: str, removed: Counter[str]) -> None:
        for table in [holding.table for holding in HOLDINGS if holding.fate is Fate.REMOVED]:

            def some(connection: Connection, table: Any = table) -> int:
                return remove_rows(connection, table, self._scope, customer_id)

            while number := await self._database.write(some):
                removed[str(table.name)] += number

    async def _replace(self, customer_id: str, pseudonym: str, replaced: Counter[str]) -> None:
        for holding in [one for one in HOLDINGS if one.fate is Fate.PSEUDONYM and one.table is not audit_log]:

            def some(connection: Connection, holding: Any = holding) -> int:
                return replace_customer(connection, holding, self._scope, customer_id, pseudonym)

            while number := await self._database.write(some):
                replaced[str(holding.table.name)] += number
        after: int | None = 0
        while after is not None:

            def next_(connection: Connection, after: int = after) -> tuple[int, int | None]:
                return redact_audit_log(connection, self._scope, customer_id, pseudonym, after)

            number, after = await self._database.write(next_)
            if number:
                replaced[str(audit_log.name)] += number

    def _end(self, connection: Connection, pseudonym: str, removed: Counter[str]) -> None:
        now = self._now()
        ended = {"customer_id": None, "finished_at": now}
        connection.execute(update(erasures).where(erasures.c.id == pseudonym).values(ended))
        facts: dict[str, audit.Fact] = {f"removed_{name}": count for name, count in removed.items()}
        audit.record(connection, [audit.Event(audit.CUSTOMER_ERASED, now, self._scope, pseudonym, facts=facts)])


_DROP: Final = delete(erasures).where(erasures.c.id == bindparam("id_"))
_BEGIN: Final[Mapping[str, Any]] = {
    "sqlite": sqlite.insert(erasures).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(erasures).on_conflict_do_nothing(),
}
