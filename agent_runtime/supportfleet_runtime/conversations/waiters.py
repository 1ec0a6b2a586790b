"""Requests that wait for a task to end, in this process, whoever works it.

A task that this process works resolves its waiter directly. One that another works is heard of by a signal or, if that
is lost, found by looking once a second, in one query for all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Final

import structlog

from supportfleet_runtime.conversations.records import Outcome
from supportfleet_runtime.errors import StorageError

log = structlog.get_logger()

POLL_SECONDS: Final = 1.0


class Waiters:
    """Who waits for which task. ``look_up`` finds the replies of those tasks that have one, or take long."""

    def __init__(
        self, look_up: Callable[[Collection[str]], Awaitable[Mapping[str, Outcome]]], *, poll: float = POLL_SECONDS
    ) -> None:
        self._look_up = look_up
        self._poll = poll
        self._futures: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._look = asyncio.Event()
        self._heard: set[str] = set()

    @contextlib.asynccontextmanager
    async def waiting(self, task_id: str) -> AsyncIterator[asyncio.Future[Outcome]]:
        """The future outcome of a task. Enter before the task is stored, so that nothing is missed."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting = self._futures.setdefault(task_id, [])
        waiting.append(future)
        try:
            yield future
        finally:
            waiting.remove(future)
            if not waiting:
                del self._futures[task_id]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._futures

    def resolve(self, task_id: str, outcome: Outcome) -> None:
        """What became of the task: its reply, or that it takes long."""
        for future in self._futures.get(task_id, ()):
            if not future.done():
                future.set_result(outcome)

    def hear(self, task_ids: Collection[str]) -> None:
        """Others say that these tasks have ended, or may have: they are looked up at once."""
        heard = self._futures.keys() & task_ids
        if heard:
            self._heard |= heard
            self._look.set()

    async def run(self) -> None:
        """Look up what was heard of at once, and everything once a second."""
        while True:
            ids: set[str]
            try:
                async with asyncio.timeout(self._poll):
                    await self._look.wait()
                ids = self._heard & self._futures.keys()
            except TimeoutError:
                ids = set(self._futures)
            self._look.clear()
            self._heard.clear()
            if ids:
                await self._resolve_ended(ids)

    async def _resolve_ended(self, ids: Collection[str]) -> None:
        try:
            ended = await self._look_up(ids)
        except StorageError as error:
            log.warning("replies_not_looked_up", reason=str(error))
            return
        for task_id, outcome in ended.items():
            self.resolve(task_id, outcome)
