"""What is to be called: the ``callbacks`` table.

A callback is stored with the message that asks for it, and waits there. What makes it due is that its task has ended,
so the transaction that stores the answer also decides that it is told: nothing more is written then, and nothing can
come between. Any pod of the agent may lease what is due. A callback whose worker dies is leased again, under the same
id, so it is delivered at least once and a receiver can tell a repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, exists, select

from supportfleet_runtime.callbacks.settings import Kind
from supportfleet_runtime.errors import NotFoundError
from supportfleet_runtime.queue.leases import LeasedRows, LeaseStatements, leasing, update_held
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import DEAD, DONE, callbacks, is_unfinished, tasks


@dataclass(frozen=True)
class Call:
    """A callback to be made. ``id`` is the same at each attempt."""

    id: str
    task_id: str
    kind: Kind
    target: str


class Outbox(LeasedRows):
    """The callbacks of one agent (``scope``), as far as their ``kinds`` can be made here."""

    def __init__(
        self, database: Database, scope: str, kinds: Sequence[Kind], *, lease: float, now: Callable[[], datetime]
    ) -> None:
        super().__init__(database, _LEASES, lease=lease, now=now)
        self._scope = scope
        self._kinds = [kind.value for kind in kinds]

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` callbacks that are due, oldest first."""
        now = self._now()
        values: dict[str, Any] = {"scope_": self._scope, "kinds_": self._kinds, "now_": now}
        # Reading first spares an idle fleet a writing transaction each second.
        if await self._database.read(lambda connection: connection.execute(_ANY, values).first()) is None:
            return ()
        values |= {"until_": now + self._lease, "limit_": limit}
        rows = await self._database.write(lambda connection: connection.execute(_LEASE, values).all())
        return [Lease(row.id, row.tries, now) for row in sorted(rows)]

    async def load(self, lease: Lease) -> Call:
        """What is to be called."""
        row = await self._database.read(lambda connection: connection.execute(_LOAD, {"id_": lease.id}).first())
        if row is None:  # erased since
            raise NotFoundError("no such callback")
        return Call(row.id, row.task_id, Kind(row.kind), row.target)

    async def end(self, lease: Lease, *, error: str | None = None) -> bool:
        """End a callback: as delivered, or as failed for good with ``error``; false where the lease was lost."""
        values = {"state_": DEAD if error else DONE, "finished_": self._now(), "error_": error}
        return bool(await self._database.write(lambda connection: update_held(connection, _END, [lease], values)))


def _is_due() -> ColumnElement[bool]:
    task = tasks.alias("task")
    has_ended = exists().where(task.c.id == callbacks.c.task_id, task.c.state.in_((DONE, DEAD)))
    return (
        (callbacks.c.scope == bindparam("scope_"))
        & is_unfinished(callbacks)
        & (callbacks.c.visible_at <= bindparam("now_", type_=callbacks.c.visible_at.type))
        & callbacks.c.kind.in_(bindparam("kinds_", expanding=True))
        & has_ended
    )


_LEASES: Final = LeaseStatements(callbacks)
_ANY = select(callbacks.c.id).where(_is_due()).limit(1)
_DUE = (
    select(callbacks.c.id)
    .where(_is_due())
    .order_by(callbacks.c.visible_at, callbacks.c.id)
    .limit(bindparam("limit_"))
    .with_for_update(skip_locked=True, of=callbacks)
)
_LEASE = leasing(callbacks, _DUE, callbacks.c.id, callbacks.c.tries)
_LOAD = select(callbacks).where(callbacks.c.id == bindparam("id_"))
_END = _LEASES.of_held(state=bindparam("state_"), finished_at=bindparam("finished_"), error=bindparam("error_"))
