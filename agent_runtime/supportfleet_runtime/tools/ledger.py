"""The agent's ledger of effects: what was asked to be done, written down before it was asked for.

::

    (no row) ── begin ──> pending ── settle ──> done | refused | ambiguous
                             └───── forget ──> (no row): the call was never made

A row that is pending when a message is tried again is of an attempt that ended in the middle: nobody here knows how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from supportfleet_runtime.agent.toolbox import Authority, ToolStatus
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.locks import one_at_a_time
from supportfleet_runtime.storage.tool_tables import AMBIGUOUS, DONE, PENDING, REFUSED, effects
from supportfleet_runtime.tools.catalogue import TOOLS, Tool
from supportfleet_runtime.tools.outcome import Outcome

STATES: Final = {ToolStatus.DONE: DONE, ToolStatus.AMBIGUOUS: AMBIGUOUS}


@dataclass(frozen=True)
class Entry:
    """An effect that was written down. Without an outcome it is pending."""

    key: str
    tool: Tool
    arguments_hash: str
    outcome: Outcome | None


class Ledger:
    """The effects of one agent's messages."""

    def __init__(self, database: Database, scope: str, now: Callable[[], datetime]) -> None:
        self._database = database
        self._scope = scope
        self._now = now

    async def begin(self, key: str, tool: Tool, arguments_hash: str, authority: Authority) -> Entry | None:
        """Write an effect down before it is asked for; what is there already, if it is."""
        now = self._now()
        values = {
            "key": key,
            "scope": self._scope,
            "task_id": authority.task_id,
            "conversation_id": authority.conversation_id,
            "customer_id": authority.customer_id,
            "tool": tool.name,
            "arguments_hash": arguments_hash,
            "state": PENDING,
            "created_at": now,
            "updated_at": now,
        }

        def work(connection: Connection) -> Entry | None:
            one_at_a_time(connection, key)  # a message whose lease ran out may be worked by two pods at once
            row = connection.execute(_FIND.where(effects.c.key == key)).one_or_none()
            if row is not None:
                return _entry(row)
            connection.execute(insert(effects), [values])
            return None

        return await self._database.write(work)

    async def settle(self, key: str, outcome: Outcome) -> None:
        """Write down what came of it, once: what is settled stays as it is."""
        now, state = self._now(), STATES.get(outcome.status, REFUSED)
        values = {"state": state, "outcome": outcome.model_dump_json(), "updated_at": now}
        told = update(effects).where(*_pending(key)).values(values).returning(effects)

        def work(connection: Connection) -> None:
            found = connection.execute(told).one_or_none()
            if found is None:
                return
            about = (found.customer_id, found.conversation_id, None, found.task_id)
            facts = {"key": key, "tool": found.tool, "state": state, **_amount(outcome)}
            audit.record(connection, [audit.Event(audit.EFFECT_SETTLED, now, self._scope, *about, facts)])

        await self._database.write(work)

    async def forget(self, key: str) -> None:
        """Strike out what was never asked for."""
        gone = delete(effects).where(*_pending(key))
        await self._database.write(lambda connection: connection.execute(gone).close())

    async def of_task(self, task_id: str) -> Sequence[Entry]:
        """What an attempt at this message asked for, oldest first."""
        statement = _FIND.where(effects.c.task_id == task_id, effects.c.scope == self._scope)
        ordered = statement.order_by(effects.c.created_at, effects.c.key)
        rows = await self._database.read(lambda connection: connection.execute(ordered).all())
        return [_entry(row) for row in rows]


def _pending(key: str) -> tuple[ColumnElement[bool], ...]:
    """An effect of which nobody wrote down yet how it ended."""
    return effects.c.key == key, effects.c.state == PENDING


def _amount(outcome: Outcome) -> dict[str, audit.Fact]:
    """Of the money, where some was moved or was to be."""
    return {name: str(outcome.data[name]) for name in ("amount", "currency") if name in outcome.data}


def _entry(row: Any) -> Entry:
    outcome = None if row.outcome is None else Outcome.model_validate_json(row.outcome)
    return Entry(row.key, TOOLS[row.tool], row.arguments_hash, outcome)


_FIND: Final = select(effects.c.key, effects.c.tool, effects.c.arguments_hash, effects.c.outcome)
