"""Telemetry on its way out: a bounded number of items, sent in batches to one destination.

Whoever puts something in never waits, and never learns whether it arrived. What can't be delivered now is kept and sent
later, while there is room; beyond that, and where the destination refuses it for good, it is dropped and counted. So a
collector that is down costs some memory and a number in a counter, and the log two lines: that it went, and came back.

There is one request at a time with one time limit, and no retry but the next round: pauses grow while it fails.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

log = structlog.get_logger()

T = TypeVar("T")

SIZE: Final = 4096
BATCH: Final = 256
PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 30.0
PASSING: Final = frozenset({408, 429, 502, 503, 504})
"""Statuses that another try may change."""


@dataclass(frozen=True)
class Destination:
    """Where telemetry goes. ``headers`` may hold keys."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compress: bool = False
    certificate: Path | None = None
    """The authority that its certificate is of, where that is none of the system's."""


class UndeliveredError(Exception):
    """A batch did not arrive. ``later``: another try may succeed."""

    def __init__(self, reason: str, *, later: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.later = later


class Mail:
    """Sends bodies of protobuf to one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._session: ClientSession | None = None

    async def send(self, body: bytes) -> None:
        """Send one; raises ``UndeliveredError``."""
        to = self._destination
        headers = {**to.headers, "Content-Type": "application/x-protobuf"}
        if to.compress:
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        if self._session is None:
            trust = ssl.create_default_context(cafile=to.certificate) if to.certificate else True
            connector = TCPConnector(limit=1, ssl=trust)
            self._session = ClientSession(connector=connector, timeout=ClientTimeout(total=to.timeout))
        try:
            async with self._session.post(to.url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (ClientError, OSError, TimeoutError, ValueError) as error:  # ValueError: an address that is none
            raise UndeliveredError(type(error).__name__, later=True) from error
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise UndeliveredError(f"HTTP {status}", later=status in PASSING)

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class Outbox(Generic[T]):
    """Items for one destination. ``dropped`` is told how many were lost, and why: ``full`` or ``refused``."""

    def __init__(
        self,
        destination: Destination,
        encode: Callable[[Sequence[T]], bytes],
        dropped: Callable[[int, str], None],
        *,
        size: int = SIZE,
        pause: float = PAUSE,
    ) -> None:
        self._name = destination.name
        self._mail = Mail(destination)
        self._encode = encode
        self._dropped = dropped
        self._size = size
        self._pause = pause
        self._items: deque[T] = deque()
        self._enough = asyncio.Event()
        self._sending = asyncio.Lock()
        self._failing = False

    def put(self, item: T) -> None:
        """Have it sent, if there is room."""
        if len(self._items) >= self._size:
            self._dropped(1, "full")
            return
        self._items.append(item)
        if len(self._items) == BATCH:
            self._enough.set()

    async def run(self) -> None:
        """Send for ever."""
        pause = self._pause
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._enough.wait()
            except TimeoutError:
                pass  # a batch that is not full goes as well
            self._enough.clear()
            pause = self._pause if await self._send_all() else min(2 * pause, LONGEST_PAUSE)

    async def close(self, grace: float) -> None:
        """Send what is left within ``grace`` seconds; what isn't by then is lost."""
        try:
            async with asyncio.timeout(grace):
                await self._send_all()
        except TimeoutError:
            pass
        if self._items:
            self._dropped(len(self._items), "unsent")
        await self._mail.close()

    async def _send_all(self) -> bool:
        """Send all there is; whether it was possible."""
        async with self._sending:
            return await self._send_batches()

    async def _send_batches(self) -> bool:
        while self._items:
            batch = list(islice(self._items, BATCH))
            try:
                await self._mail.send(await asyncio.to_thread(self._encode, batch))
            except UndeliveredError as error:
                self._tell(error.reason)
                if error.later:
                    return False
                self._dropped(len(batch), "refused")
            else:
                self._tell(None)
            for _ in batch:  # only now: they are kept while nobody has them
                self._items.popleft()
        return True

    def _tell(self, problem: str | None) -> None:
        """Log when it starts to fail, and when that is over."""
        if problem and not self._failing:
            log.warning("telemetry_not_delivered", destination=self._name, reason=problem)
        elif self._failing and not problem:
            log.info("telemetry_delivered_again", destination=self._name)
        self._failing = problem is not None
