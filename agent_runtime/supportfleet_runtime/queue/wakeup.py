"""How a worker hears of work without looking all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeup:
    """A bell. ``has_room`` is the worker's: whether it would take more, so that nobody else need be told."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self.has_room = False

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` as well whenever the bell is rung."""
        self._listeners.append(listener)

    def notify(self) -> None:
        """There may be work."""
        self._event.set()
        for listener in self._listeners:
            listener()

    async def wait(self, seconds: float) -> bool:
        """Wait for the bell, or for so many ``seconds``; whether it rang."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
