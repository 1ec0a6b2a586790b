"""What the runtime needs of a queue.

Delivery is at-least-once. An item is leased to one worker at a time; a lease that is neither extended nor ended in time
goes to another. Items of one conversation are leased one at a time, in order. ``publish`` and ``ack`` join the caller's
transaction, so that a message and its task, and a reply and its acknowledgement, are stored together or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection


@dataclass(frozen=True)
class QueueItem:
    """Work to be done: a conversation's turn."""

    id: str
    conversation_id: str
    turn: int
    created_at: datetime
    trace: str | None = None
    """What continues the trace of whoever brought it (``traceparent``)."""
    urgent: bool = False
    """Whether it goes before others that came shortly before it."""


@dataclass(frozen=True)
class Lease:
    """An item that is this worker's for now. ``tries`` counts this attempt too."""

    id: str
    tries: int
    leased_at: datetime
    created_at: datetime | None = None
    trace: str | None = None


class Leases(Protocol):
    """What a worker needs of a queue."""

    @property
    def waits(self) -> bool:
        """Whether ``receive`` waits for work by itself, a second at most. If not, a worker listens to its bell."""
        ...

    async def receive(self, limit: int) -> Sequence[Lease]:
        """Lease up to ``limit`` items that are due, oldest first; none is no error."""
        ...

    def ack(self, transaction: Connection, leases: Collection[Lease], *, dead: bool = False) -> set[str]:
        """End leases for good: as done, or as given up (dead). The ids that were still held."""
        ...

    async def retry(self, lease: Lease, delay: float, error: str) -> None:
        """Give an item back for another try in ``delay`` seconds."""
        ...

    async def extend(self, leases: Collection[Lease]) -> set[str]:
        """Keep leases alive. The ids that are still held."""
        ...

    async def release(self, leases: Collection[Lease]) -> None:
        """Give items back at once, as if they had not been tried."""
        ...


class Queue(Leases, Protocol):
    """A queue of one name."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def publish(self, transaction: Connection, items: Sequence[QueueItem]) -> None:
        """Add items; they are there when the transaction commits."""
        ...

    async def depth(self) -> int:
        """How many items wait for a worker."""
        ...

    async def run(self) -> None:
        """Do what the queue needs done in the background, for as long as the process lives."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
