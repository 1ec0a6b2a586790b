"""Who watches which conversation, and how they hear that something in it changed, whichever process changed it.

What this process changes it tells its own watchers at once. Between processes signals go both ways (PostgreSQL): who
watches announces it every few seconds, and who changes something that was announced lately says so with the transaction
that changes it; so nothing is sent for conversations that nobody watches. A signal only saves waiting: once a second
all that is watched here is looked at in one query, and who watches then reads what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import DatabaseKind

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0
ANNOUNCE_SECONDS: Final = 10.0
REMEMBER_SECONDS: Final = 30.0
MOST_REMEMBERED: Final = 50_000

LookUp = Callable[[Collection[str]], Awaitable[Mapping[str, Any]]]
"""A mark for each conversation, which is another one after a change."""


class Bell(asyncio.Event):
    """Rings in who watches. ``nudge`` rings it too, for what is not stored and need not be read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stored = False
        """Whether it rang for something that is stored."""

    def set(self) -> None:
        """Something that is stored may have changed."""
        self.is_stored = True
        super().set()

    def nudge(self) -> None:
        """Something else has."""
        super().set()

    def clear(self) -> None:
        """Be silent again."""
        self.is_stored = False
        super().clear()


class Watching:
    """The conversations that are watched here, and elsewhere."""

    def __init__(
        self,
        database: Database,
        look_up: LookUp,
        *,
        poll: float = POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._look_up = look_up
        self._poll = poll
        self._clock = clock
        self._bells: defaultdict[str, set[Bell]] = defaultdict(set)
        self._marks: dict[str, Any] = {}
        self._elsewhere: dict[str, float] = {}
        self._token = secrets.token_hex(8)
        self._news = asyncio.Event()
        self.closed = False

    @contextlib.contextmanager
    def watching(self, conversation_id: str) -> Iterator[Bell]:
        """A bell that rings when something in the conversation may have changed, or there will be no more."""
        bell = Bell()
        self._bells[conversation_id].add(bell)
        self._news.set()
        try:
            yield bell
        finally:
            self._bells[conversation_id].discard(bell)
            if not self._bells[conversation_id]:
                del self._bells[conversation_id]
                self._marks.pop(conversation_id, None)

    def changed(self, conversation_ids: Iterable[str]) -> None:
        """Something in these conversations changed: tell who watches them here."""
        for conversation_id in conversation_ids:
            for bell in self._bells.get(conversation_id, ()):
                bell.set()

    def nudge(self, conversation_id: str) -> None:
        """A draft in this conversation changed, of which nothing is stored: tell who watches it here."""
        for bell in self._bells.get(conversation_id, ()):
            bell.nudge()

    def elsewhere(self, conversation_ids: Iterable[str]) -> list[str]:
        """Those of the conversations that other processes watch."""
        if not self._elsewhere:
            return []
        now = self._clock()
        return [one for one in dict.fromkeys(conversation_ids) if self._elsewhere.get(one, now) > now]

    def hear(self, kind: str, subject: str) -> None:
        """Another process says what it watches, or what changed."""
        ids = subject.split(",")
        if kind == signals.CHANGED:
            self.changed(ids)
        elif kind == signals.WATCHED and ids[0] != self._token:
            now = self._clock()
            if len(self._elsewhere) + len(ids) > MOST_REMEMBERED:
                self._elsewhere = {one: until for one, until in self._elsewhere.items() if until > now}
            if len(self._elsewhere) + len(ids) <= MOST_REMEMBERED:  # beyond that, looking has to do
                self._elsewhere |= dict.fromkeys(ids[1:], now + REMEMBER_SECONDS)

    async def run(self) -> None:
        """Look, and announce, for ever."""
        announced_at = float("-inf")
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._news.wait()
            is_news = self._news.is_set()
            self._news.clear()
            if not self._bells:
                continue
            try:
                if is_news or self._clock() - announced_at >= ANNOUNCE_SECONDS:
                    announced_at = self._clock()
                    await self._announce(list(self._bells))
                await self.look()
            except StorageError as error:
                log.warning("conversations_not_watched", reason=str(error))
            if is_news:
                await asyncio.sleep(self._poll)  # many that come at once are announced together

    async def look(self) -> None:
        """Look at everything that is watched here."""
        marks = await self._look_up(list(self._bells))
        for conversation_id, mark in marks.items():
            if conversation_id in self._bells and self._marks.get(conversation_id) != mark:
                self._marks[conversation_id] = mark
                self.changed([conversation_id])

    def close(self) -> None:
        """There will be no more: let everybody who watches know."""
        self.closed = True
        self.changed(list(self._bells))

    async def _announce(self, ids: Sequence[str]) -> None:
        if self._database.kind is not DatabaseKind.POSTGRESQL:
            return
        size = signals.IDS_IN_ONE - 1

        def work(connection: Connection) -> None:
            for start in range(0, len(ids), size):
                signals.send(connection, signals.WATCHED, [self._token, *ids[start : start + size]])

        await self._database.write(work)
