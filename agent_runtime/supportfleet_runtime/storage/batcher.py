"""Group commit: what many callers want at the same time is done in one transaction.

While one batch is being written the next one gathers, so a lone caller waits for nobody and a crowd shares the cost of
a commit. One bad item fails alone: a batch that fails is done again item by item, unless the database is out of reach,
which fails all of them at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from supportfleet_runtime.errors import StorageUnavailableError

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items for ``flush``, which returns as many results, in order; a result may be an exception."""

    def __init__(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, largest: int = 100
    ) -> None:
        self._flush = flush
        self._largest = largest
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Have ``item`` done with others'; its result, or its exception."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(len(self._waiting), self._largest)
                taken = [self._waiting.popleft() for _ in range(size)]
                batch = [(item, future) for item, future in taken if not future.done()]  # the others gave up waiting
                if batch:
                    await self._do(batch)
        finally:
            self._runner = None

    async def _do(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        results = await self._results([item for item, _ in batch])
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _results(self, items: Sequence[T]) -> Sequence[R | Exception]:
        try:
            return await self._flush(items)
        except StorageUnavailableError as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001 - handed to whoever submitted the item
            if len(items) == 1:
                return [error]
        return [result for item in items for result in await self._results([item])]
