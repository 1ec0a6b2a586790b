"""How a worker hears of work without looking all the time."""

from __future__ import annotations

import asyncio


class Wakeup:
    """A bell. ``has_room`` is the worker's: whether it would take more, so that nobody else need be told."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.has_room = False

    def notify(self) -> None:
        """There may be work."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the bell, or for so many ``seconds``; whether it rang."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
