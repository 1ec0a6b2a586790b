"""Effects of which nobody knows: what there is of them, and a person's word that ends them.

A person finds out where the money or the parcel is, and says whether it was done. That is written into the ledger, as
the tool's own answer would have been, so a repetition of the message replays it; and into the audit log, with who said
it. Nothing is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select, update

from supportfleet_runtime.agent.toolbox import ToolStatus
from supportfleet_runtime.errors import ConflictError, NotFoundError
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import AMBIGUOUS, DONE, REFUSED, effects
from supportfleet_runtime.tools.outcome import Outcome, refused

WAS_DONE: Final = Outcome(status=ToolStatus.DONE, message="This was carried out, as a colleague has checked.")
WAS_NOT_DONE: Final = refused("This was not carried out, as a colleague has checked.")


@dataclass(frozen=True)
class AmbiguousEffect:
    """An effect that may have happened or not."""

    key: str
    tool: str
    task_id: str
    conversation_id: str
    created_at: datetime
    updated_at: datetime


class AmbiguousEffects:
    """Those of one agent (``scope``)."""

    def __init__(self, database: Database, scope: str, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._scope = scope
        self._now = now

    async def oldest(self, limit: int) -> Sequence[AmbiguousEffect]:
        """Up to ``limit``, the longest waiting first."""
        table = effects.c
        query = (
            select(table.key, table.tool, table.task_id, table.conversation_id, table.created_at, table.updated_at)
            .where(table.scope == self._scope, table.state == AMBIGUOUS)
            .order_by(table.updated_at, table.key)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [AmbiguousEffect(*row) for row in rows]

    async def resolve(self, key: str, *, done: bool, person: str) -> None:
        """Say whether it was done; raises ``NotFoundError``, and ``ConflictError`` where that is known already."""
        await self._database.write(lambda connection: self._resolve(connection, key, done, person))

    def _resolve(self, connection: Connection, key: str, done: bool, person: str) -> None:  # noqa: FBT001 - private
        now = self._now()
        outcome = WAS_DONE if done else WAS_NOT_DONE
        values = {"state": DONE if done else REFUSED, "outcome": outcome.model_dump_json(), "updated_at": now}
        own = (effects.c.key == key, effects.c.scope == self._scope)
        told = update(effects).where(*own, effects.c.state == AMBIGUOUS).values(values)
        found: Any = connection.execute(told.returning(effects)).one_or_none()
        if found is None:
            if connection.execute(select(effects.c.key).where(*own)).one_or_none() is None:
                raise NotFoundError("no such effect")
            raise ConflictError("it is not ambiguous")
        about = (found.customer_id, found.conversation_id, None, found.task_id)
        facts: dict[str, audit.Fact] = {"key": key, "tool": found.tool, "done": done, "person": person}
        audit.record(connection, [audit.Event(audit.EFFECT_RESOLVED, now, self._scope, *about, facts)])
