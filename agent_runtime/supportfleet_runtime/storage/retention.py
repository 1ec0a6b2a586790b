"""Removing conversations that nobody has added to for so many days.

Every pod looks once an hour; a batch is removed by one of them at a time, under a lock of the database that ends with
the transaction, so a pod that dies holds up nobody. Batches are small, so that messages don't wait behind them. Ids
begin with the time they were made at: only what was begun before the limit is looked at, in the primary key's order.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection, exists, func, select

from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import first_id
from supportfleet_runtime.storage.personal_data import Forget, forget_nothing, remove_conversations
from supportfleet_runtime.storage.schema import conversations, is_unfinished, tasks

log = structlog.get_logger()

EVERY_SECONDS: Final = 3600.0
BATCH: Final = 100
BREATH: Final = 0.05
"""A pause after each batch: what customers wait for comes first."""


class Retention:
    """Removes an agent's (``scope``) conversations ``days`` after their last message."""

    def __init__(
        self,
        database: Database,
        scope: str,
        days: int,
        *,
        now: Callable[[], datetime],
        forget: Forget = forget_nothing,
    ) -> None:
        self._database = database
        self._scope = scope
        self._kept = timedelta(days=days)
        self._now = now
        self._forget = forget

    async def run(self) -> None:
        """Sweep once an hour, for ever."""
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    log.info("conversations_expired", number=removed)
            except StorageError as error:
                log.warning("conversations_not_expired", reason=str(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> int:
        """Remove what is too old; how many conversations. It ends early where another pod is at it."""
        before = self._now() - self._kept
        removed = 0
        while True:
            ids = await self._database.write(lambda connection: self._remove_some(connection, before))
            if not ids:
                return removed
            await self._forget(ids)
            removed += len(ids)
            await asyncio.sleep(BREATH)

    def _remove_some(self, connection: Connection, before: datetime) -> Sequence[str]:
        if not self._is_ours(connection):
            return ()
        unfinished = exists().where(tasks.c.conversation_id == conversations.c.id, is_unfinished(tasks))
        query = (
            select(conversations.c.id)
            .where(
                conversations.c.id < first_id("conv", before),
                conversations.c.scope == self._scope,
                conversations.c.updated_at < before,
                ~unfinished,
            )
            .order_by(conversations.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, of=conversations)
        )
        ids = connection.execute(query).scalars().all()
        if ids:
            remove_conversations(connection, ids)
            facts: dict[str, audit.Fact] = {"conversations": len(ids)}
            audit.record(connection, [audit.Event(audit.CONVERSATIONS_EXPIRED, self._now(), self._scope, facts=facts)])
        return ids

    def _is_ours(self, connection: Connection) -> bool:
        """Whether no other pod is at it. SQLite's writers take the file in turn anyway."""
        if connection.dialect.name != "postgresql":
            return True
        key = zlib.crc32(f"supportfleet retention {self._scope}".encode())
        return bool(connection.execute(select(func.pg_try_advisory_xact_lock(key))).scalar())
