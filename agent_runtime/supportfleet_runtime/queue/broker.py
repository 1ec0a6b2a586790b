"""What carries tasks to workers where the database alone doesn't: Redis, RabbitMQ, Kafka or SQS.

A message is a task's id. It is never the only record of anything: the ``tasks`` table is (see ``brokered``). So a link
has little to do: carry ids, give each to one worker, and give it to another when that one is gone.

``Link`` is a connection to one kind of broker; it raises what its library raises, and never tries again. ``Broker``
owns connecting, time limits and errors for all of them: whatever goes wrong is a ``BrokerUnavailableError`` and the end
of that connection; the next call makes another. What was received and not acknowledged is delivered again then. Only a
library that mends its connections by itself is left to do so for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import structlog

from supportfleet_runtime.errors import SupportfleetError

log = structlog.get_logger()

T = TypeVar("T")

CONNECT_SECONDS: Final = 15.0
CALL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 5.0
MAX_REJECTED: Final = 10_000
"""How many rejected messages a broker keeps, where it can be told."""


class BrokerUnavailableError(SupportfleetError):
    """The broker can't be reached, refused, or did not answer in time: worth another try."""


@dataclass(frozen=True)
class Delivery:
    """A message that was received. ``tag`` is how its link knows it."""

    body: bytes
    tag: Any


class Link(Protocol):
    """A connection to a broker, for one queue of it."""

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:
        """Send messages; the broker has them when this returns. Where it knows priorities, some are ``urgent``."""
        ...

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Up to ``limit`` messages, waiting up to ``wait`` seconds for the first. They are nobody else's meanwhile."""
        ...

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        """All of these are done with. Those that are no tasks are put aside first, where a person can look at them."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver these again, here or elsewhere."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(frozen=True)
class Backend:
    """A kind of broker: how to connect, and what its library raises when something is out of reach."""

    connect: Callable[[], Awaitable[Link]]
    failures: tuple[type[Exception], ...]
    patience: float = 0.0
    """For how many seconds a failing connection is kept, because its library mends it."""


class Broker:
    """A broker's queue, whose connection is made when it is needed and again after each failure."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._failures: tuple[type[Exception], ...] = (*backend.failures, OSError, TimeoutError, EOFError)
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._failing_since: float | None = None
        self.problem: str | None = None
        """What was wrong with the last call, for who watches."""

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:
        """Send messages; the broker has them when this returns."""
        await self._call(lambda link: link.send(bodies, urgent))

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Up to ``limit`` messages, waiting up to ``wait`` seconds for the first."""
        return await self._call(lambda link: link.receive(limit, wait), wait)

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery] = ()) -> None:
        """All of these are done with. Those that are no tasks are put aside first."""
        await self._call(lambda link: link.settle(done, rejected))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver these again."""
        await self._call(lambda link: link.release(deliveries))

    async def close(self) -> None:
        """Close the connection, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            await self._shut(link)

    async def _call(self, operation: Callable[[Link], Awaitable[T]], wait: float = 0.0) -> T:
        link: Link | None = None
        try:
            link = await self._connected()
            async with asyncio.timeout(wait + CALL_SECONDS):
                result = await operation(link)
        except self._failures as error:
            if link is not None and link is self._link and self._is_hopeless():
                self._link = None
                await self._shut(link)
            self.problem = f"the queue's broker failed: {type(error).__name__}"
            raise BrokerUnavailableError(self.problem) from error
        else:
            self._failing_since = None
            self.problem = None
            return result

    def _is_hopeless(self) -> bool:
        """Whether the connection has failed for longer than its library may take to mend it."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
        return now - self._failing_since >= self._backend.patience

    async def _connected(self) -> Link:
        async with self._connecting:
            if self._link is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self._link = await self._backend.connect()
                self._failing_since = None
                log.info("broker_connected")
            return self._link

    async def _shut(self, link: Link) -> None:
        """Close a connection that may be broken: how that fails tells nothing new."""
        with contextlib.suppress(*self._failures):
            async with asyncio.timeout(CLOSE_SECONDS):
                await link.close()
