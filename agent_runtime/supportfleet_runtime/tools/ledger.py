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

from sqlalchemy import Connection, Delete, Update, delete, insert, select, update

from supportfleet_runtime.agent.toolbox import Authority, ToolStatus
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
        """Write down what came of it."""
        values = {
            "state": STATES.get(outcome.status, REFUSED),
            "outcome": outcome.model_dump_json(),
            "updated_at": self._now(),
        }
        await self._change(key, update(effects).values(values))

    async def forget(self, key: str) -> None:
        """Strike out what was never asked for."""
        await self._change(key, delete(effects))

    async def of_task(self, task_id: str) -> Sequence[Entry]:
        """What an attempt at this message asked for, oldest first."""
        statement = _FIND.where(effects.c.task_id == task_id, effects.c.scope == self._scope)
        ordered = statement.order_by(effects.c.created_at, effects.c.key)
        rows = await self._database.read(lambda connection: connection.execute(ordered).all())
        return [_entry(row) for row in rows]

    async def _change(self, key: str, statement: Update | Delete) -> None:
        """Only a pending effect changes: what is settled stays as it is."""
        chosen = statement.where(effects.c.key == key, effects.c.state == PENDING)
        await self._database.write(lambda connection: connection.execute(chosen).close())


def _entry(row: Any) -> Entry:
    outcome = None if row.outcome is None else Outcome.model_validate_json(row.outcome)
    return Entry(row.key, TOOLS[row.tool], row.arguments_hash, outcome)


_FIND: Final = select(effects.c.key, effects.c.tool, effects.c.arguments_hash, effects.c.outcome)
