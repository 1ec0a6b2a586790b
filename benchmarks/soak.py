"""Is memory flat, and is nothing lost, while gateway and worker serve a steady load for an hour?

    python benchmarks/soak.py [--minutes 60] [--rate 20] [--database postgresql://…] [--queue redis://…]

Gateway and worker run as processes of their own on PostgreSQL (a server of its own, where the programs are installed),
else on an SQLite file. Messages come at random times at a steady rate; conversations have ten turns each, and a fake
Messages API answers every one, since no rule can. What is kept for a time (``REDIS_TTL``) is kept for five minutes, so
that all caches are full or emptied at their pace before the first quarter is over; whether memory is flat is told by
the slope of the other three. Exit code 1 where a message failed or was lost, or memory was not flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import runpy
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, web
from loading.client import due_times, questions
from loading.servers import Running, messages_api, running, runtime, scratch

SERVICES = Path(__file__).parent.parent / "tests" / "services" / "conftest.py"
TURNS = 10
KEPT_SECONDS = 300
MODEL_MILLISECONDS = 20
FLAT_MB_PER_HOUR = 6.0
"""Slope up to which memory counts as flat."""
JUDGED_HOURS = 0.25
"""With less than this the slope is that of caches that fill, and tells nothing."""
TIMEOUT = ClientTimeout(total=60)
SETTLE_SECONDS = 120


@dataclass
class Sent:
    """What became of the messages; ``open`` are tasks that were not answered in their request."""

    outcomes: Counter[str] = field(default_factory=Counter)
    open: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)


@dataclass
class Resident:
    """Resident memory of a process over time: hours from the start, megabytes."""

    hours: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def add(self, hours: float, megabytes: float) -> None:
        """One more sample."""
        self.hours.append(hours)
        self.megabytes.append(megabytes)

    @property
    def slope(self) -> float:
        """Megabytes an hour over the last three quarters of the samples."""
        first = len(self.hours) // 4
        if len(self.hours) - first < 2:  # noqa: PLR2004 - a line has two points
            return 0.0
        return statistics.linear_regression(self.hours[first:], self.megabytes[first:]).slope


class Talk:
    """Conversations that go on: each message continues the next one that waits for its customer, or begins one."""

    def __init__(self) -> None:
        self._idle: list[tuple[str, str, int]] = []
        self._question = questions()

    def next(self) -> tuple[dict[str, Any], int]:
        """A message, and which turn of its conversation it is."""
        message: dict[str, Any] = orjson.loads(self._question())
        if not self._idle:
            return message, 1
        conversation, customer, turn = self._idle.pop(0)
        return {**message, "customer_id": customer, "conversation_id": conversation}, turn

    def answered(self, message: dict[str, Any], conversation: str, turn: int) -> None:
        """The customer may write again."""
        if turn < TURNS:
            self._idle.append((conversation, message["customer_id"], turn + 1))


@contextlib.contextmanager
def database(given: str | None, folder: Path) -> Iterator[str]:
    """Where messages are stored: as given, else in a PostgreSQL that is thrown away, else in a file."""
    services: dict[str, Any] = {} if given else runpy.run_path(str(SERVICES))
    programs = services["_find_programs"]() if services else None
    if programs is None:
        yield given or f"sqlite:///{folder / 'soak.db'}"
        return
    server = services["PostgreSQL"](programs)
    try:
        server.start()
        yield server.new_database()
    finally:
        server.remove()


async def send(session: ClientSession, url: str, talk: Talk, sent: Sent) -> None:
    """Send one message, and note what became of it."""
    message, turn = talk.next()
    started = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/messages", json=message) as response:
            answer = await response.json(content_type=None)
    except (ClientError, TimeoutError, ValueError) as error:
        sent.outcomes[type(error).__name__] += 1
        return
    if response.status == web.HTTPAccepted.status_code:
        sent.open.add(answer["task_id"])
        return
    is_right = response.status == web.HTTPOk.status_code and answer["source"] == "model"
    sent.outcomes["answered" if is_right else f"{response.status} {answer.get('source', '')}".strip()] += 1
    if is_right:
        sent.times.append(time.perf_counter() - started)
        talk.answered(message, answer["conversation_id"], turn)


async def send_all(session: ClientSession, url: str, rate: float, seconds: float, sent: Sent) -> None:
    """Send at a steady rate, whatever becomes of the messages."""
    talk, started = Talk(), time.perf_counter()
    sending: set[asyncio.Task[None]] = set()
    for at in due_times(rate, seconds, seed=1):
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        task = asyncio.create_task(send(session, url, talk, sent))
        sending.add(task)
        task.add_done_callback(sending.discard)
    await asyncio.gather(*sending)


async def settle(session: ClientSession, url: str, sent: Sent) -> None:
    """Ask for what was accepted and not answered in its request; what isn't done in the end is lost."""
    until = time.perf_counter() + SETTLE_SECONDS
    while sent.open and time.perf_counter() < until:
        for task in list(sent.open):
            async with session.get(f"{url}/v1/tasks/{task}") as response:
                if (await response.json())["status"] == "done":
                    sent.open.discard(task)
                    sent.outcomes["answered later"] += 1
        await asyncio.sleep(1)
    sent.outcomes.update({"lost": len(sent.open)} if sent.open else {})


async def sample(servers: Sequence[Running], resident: Sequence[Resident], every: float) -> None:
    """Note the memory, for ever."""
    started = time.perf_counter()
    while True:
        for server, one in zip(servers, resident, strict=True):
            one.add((time.perf_counter() - started) / 3600, server.rss_mb)
        await asyncio.sleep(every)


@contextlib.asynccontextmanager
async def fleet(url: str, queue: str | None) -> AsyncIterator[tuple[Running, Running]]:
    """A gateway and a worker that share a database, with a model."""
    model = messages_api(MODEL_MILLISECONDS)
    broker = {"QUEUE_TYPE": "redis", "QUEUE_URL": queue} if queue else {}
    environ = {"REDIS_TTL": str(KEPT_SECONDS), **broker}
    async with (
        running(model),
        running(runtime("gateway", model, url, **environ)) as gateway,
        running(runtime("worker", model, url, **environ)) as worker,
    ):
        yield gateway, worker


async def soak(minutes: float, rate: float, given: str | None, queue: str | None) -> bool:
    """Serve for so long, and print what became of it; whether all was well."""
    sent, resident = Sent(), (Resident(), Resident())
    with scratch() as folder, database(given, folder) as url:
        async with fleet(url, queue) as servers, ClientSession(timeout=TIMEOUT) as session:
            kind = url.partition(":")[0]
            print(f"gateway and worker on {kind}, {minutes:g} minutes, {rate:g} messages/s", flush=True)
            address = f"http://127.0.0.1:{servers[0].server.port}"
            sampling = asyncio.create_task(sample(servers, resident, min(10.0, minutes * 60 / 40)))
            used, started = [server.cpu_seconds for server in servers], time.perf_counter()
            await send_all(session, address, rate, minutes * 60, sent)
            took = time.perf_counter() - started
            sampling.cancel()
            cpu = [(server.cpu_seconds - so_far) / took * 100 for server, so_far in zip(servers, used, strict=True)]
            await settle(session, address, sent)
    return report(sent, resident, cpu)


def report(sent: Sent, resident: Sequence[Resident], cpu: Sequence[float]) -> bool:
    """Print it; whether all was well."""
    print("\n| role | RSS MB first | after a quarter | last | most | MB an hour, last three quarters | CPU % |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for role, one, used in zip(("gateway", "worker"), resident, cpu, strict=True):
        at = one.megabytes
        print(
            f"| {role} | {at[0]:.1f} | {at[len(at) // 4]:.1f} | {at[-1]:.1f} | {max(at):.1f} | {one.slope:+.2f}"
            f" | {used:.1f} |"
        )
    times = sorted(sent.times) or [float("nan")]
    print(f"\nmessages: {dict(sent.outcomes)}; p50 {times[len(times) // 2] * 1000:.0f} ms,", end=" ")
    print(f"p99 {times[int(len(times) * 0.99)] * 1000:.0f} ms")
    is_flat = all(one.slope <= FLAT_MB_PER_HOUR or one.hours[-1] < JUDGED_HOURS for one in resident)
    is_whole = set(sent.outcomes) <= {"answered", "answered later"}
    flat, whole = "flat" if is_flat else "not flat", "nothing failed" if is_whole else "some failed"
    print(f"memory is {flat}, {whole}", flush=True)
    return is_flat and is_whole


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second")
    parser.add_argument("--database", help="DATABASE_URL; else a PostgreSQL is started, or a file is used")
    parser.add_argument("--queue", help="a Redis to carry messages to the worker; else the database does")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped
    if not uvloop.run(soak(given.minutes, given.rate, given.database, given.queue)):
        sys.exit(1)


if __name__ == "__main__":
    main()
