"""A client that costs little (raw HTTP/1.1 over kept-alive connections), and the two kinds of load it makes.

With *full* load every connection has a request under way all the time: it tells how much a server can do. With *open*
load requests are due at random times, whatever becomes of those before them, and one that finds no connection free
waits: its time counts from when it was due, so a server that stands still is not excused from what piles up meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import orjson

GRACE_SECONDS = 120
END_OF_HEAD = b"\r\n\r\n"
FROM_THE_MODEL = b'"source":"model"'
"""What the runtime's answer holds where the language model gave it."""


@dataclass(frozen=True)
class Target:
    """Where requests go, what the next one is, and what an answer must hold to count."""

    port: int
    path: str
    body: Callable[[], bytes]
    status: int = 200
    expected: bytes = b""

    def request(self) -> bytes:
        """The next request, as it goes over the wire."""
        return posted(self.port, self.path, self.body())

    def is_right(self, status: int, body: bytes) -> bool:
        """Whether an answer is what was asked for."""
        return status == self.status and self.expected in body


@dataclass
class Load:
    """What came of some requests: the seconds that each right answer took, what else came, how long all took."""

    times: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    took: float = 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds in which this share of the answers had come."""
        ranked = sorted(self.times)
        return ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1000 if ranked else float("nan")

    @property
    def per_second(self) -> float:
        """Right answers a second."""
        return len(self.times) / self.took if self.took else 0.0


def posted(port: int, path: str, body: bytes) -> bytes:
    """A request, as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def questions(seed: int = 1) -> Callable[[], bytes]:
    """Messages to the runtime that no rule can answer, each once, so that no answer is an earlier one."""
    numbers = itertools.count(seed * 1_000_000)

    def message() -> bytes:
        number = next(numbers)
        text = f"Do you have the walking boots number {number} in green, and do they fit wide feet?"
        return orjson.dumps({"customer_id": f"cust-{number % 1000}", "text": text})

    return message


def due_times(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds from the start, if they come at random."""
    chance, at = random.Random(seed), 0.0  # noqa: S311 - the same ones in each run
    while (at := at + chance.expovariate(rate)) < seconds:
        yield at


def always(seconds: float) -> Iterator[None]:
    """A request is due whenever a connection is free."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield None


async def load(target: Target, connections: int, due: Iterator[float] | Iterator[None], seconds: float) -> Load:
    """Send what is due over so many connections; ``seconds`` is about how long that takes."""
    found, started = Load(), time.perf_counter()
    async with asyncio.timeout(seconds + GRACE_SECONDS):
        await asyncio.gather(*(_send(target, due, started, found) for _ in range(connections)))
    found.took = time.perf_counter() - started
    return found


async def _send(target: Target, due: Iterator[float] | Iterator[None], started: float, found: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        for at in due:
            since = time.perf_counter()
            if at is not None:
                since = started + at
                await asyncio.sleep(max(0.0, since - time.perf_counter()))
            status, body = await exchange(reader, writer, target.request())
            if target.is_right(status, body):
                found.times.append(time.perf_counter() - since)
            else:
                found.wrong.append(f"{status}: {body[:200].decode(errors='replace')}")
    finally:
        writer.close()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send one request; status and body of its answer."""
    writer.write(request)
    head = (await reader.readuntil(END_OF_HEAD)).lower()
    status = int(head[9:12])
    if b"transfer-encoding: chunked" in head:
        return status, b"".join([chunk async for chunk in _chunks(reader)])
    return status, await reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
