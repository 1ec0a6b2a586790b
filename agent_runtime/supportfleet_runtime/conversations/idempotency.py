"""Keys by which a caller may send a message again and have it taken in once.

A key is its customer's. It is claimed in the transaction that stores the message, so that both are there or neither,
and kept for a day. Where two requests with one key come together, in whichever pods, the table's primary key lets one
of them claim it: the other is told whose it is, and waits for that task. Messages without a key cost nothing here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select

from supportfleet_runtime.conversations.records import Incoming
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import idempotency_keys as table

KEPT: Final = timedelta(hours=24)
FORGOTTEN_EVERY: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Earlier:
    """The message that has the key already. ``is_same``: it said the same."""

    task_id: str
    message_id: str
    conversation_id: str
    is_same: bool


class IdempotencyKeys:
    """The keys of one agent's customers (``scope``)."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._forgot_at: datetime | None = None

    def claim(self, connection: Connection, batch: Sequence[Incoming]) -> dict[str, Earlier]:
        """Claim the batch's keys; for each message whose key is another's already, that one, by its task."""
        keyed = [(item, item.once.key, item.once.digest) for item in batch if item.once]
        if not keyed:
            return {}
        now = max(item.received_at for item, _, _ in keyed)
        self._forget(connection, now)
        firsts: dict[tuple[str, str], dict[str, Any]] = {}
        for item, key, digest in keyed:
            firsts.setdefault((item.customer_id, key), self._row(item, key, digest))
        # Rows are locked in the same order everywhere, so that two processes can't wait for each other.
        connection.execute(_claim(connection.dialect.name), [firsts[name] for name in sorted(firsts)])
        found = connection.execute(_FIND, {"scope_": self._scope, "names_": list(firsts)})
        held = {(row.customer_id, row.key): row for row in found}
        return {
            item.task_id: Earlier(row.task_id, row.message_id, row.conversation_id, row.digest == digest)
            for item, key, digest in keyed
            if (row := held[item.customer_id, key]).task_id != item.task_id
        }

    def release(self, connection: Connection, refused: Sequence[Incoming]) -> None:
        """Give up the keys of messages that were not taken in after all."""
        keyed = [(item.customer_id, item.once.key, item.task_id) for item in refused if item.once]
        if keyed:
            connection.execute(_RELEASE, {"scope_": self._scope, "claims_": keyed})

    def _row(self, item: Incoming, key: str, digest: str) -> dict[str, Any]:
        return {
            "scope": self._scope,
            "customer_id": item.customer_id,
            "key": key,
            "digest": digest,
            "task_id": item.task_id,
            "message_id": item.message_id,
            "conversation_id": item.conversation_id,
            "created_at": item.received_at,
            "expired_": item.received_at - KEPT,
        }

    def _forget(self, connection: Connection, now: datetime) -> None:
        """Delete what is no longer kept, now and then."""
        if self._forgot_at is None or now - self._forgot_at >= FORGOTTEN_EVERY:
            self._forgot_at = now
            connection.execute(delete(table).where(table.c.scope == self._scope, table.c.created_at < now - KEPT))


@functools.cache
def _claim(dialect: str) -> Any:
    """Insert, or take over what has expired; a row that is somebody's stays as it is."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415 - only the one in use
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]  # noqa: PLC0415
    statement = insert(table)
    taken = ("digest", "task_id", "message_id", "conversation_id", "created_at")
    return statement.on_conflict_do_update(
        index_elements=[table.c.scope, table.c.customer_id, table.c.key],
        set_={name: statement.excluded[name] for name in taken},
        where=table.c.created_at < bindparam("expired_", type_=table.c.created_at.type),
    )


_RELEASE = delete(table).where(
    table.c.scope == bindparam("scope_"), among("claims_", table.c.customer_id, table.c.key, table.c.task_id)
)
_FIND = select(table).where(
    table.c.scope == bindparam("scope_"),
    among("names_", table.c.customer_id, table.c.key),
)
