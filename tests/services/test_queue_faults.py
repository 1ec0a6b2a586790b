"""Queues while things break: workers that are killed, brokers that are restarted under load.

Workers are processes (``queue_worker.py``), the gateway's part runs here, and a checker says from the recorded history
whether every accepted message was answered, each once, in order (``queue_history.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import and_, select

from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.records import Incoming
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.settings import queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.schema import AGENT, messages, tasks
from supportfleet_runtime.storage.url import parse_database_url

HERE = Path(__file__).parent
_brokers = runpy.run_path(str(HERE / "queue_brokers.py"))
_history = runpy.run_path(str(HERE / "queue_history.py"))
SERVERS, running = _brokers["SERVERS"], _brokers["running"]
Accepted, Ended, History, faults = (_history[name] for name in ("Accepted", "Ended", "History", "faults"))

NAME = "ns/agent"
RESUMES = 30.0
"""Within how many seconds work goes on after an outage."""
PATIENCE = 75.0
ENOUGH = 30
"""Within how many seconds everything has ended: what a broker holds for a dead consumer comes after half a minute."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=["postgresql", *SERVERS])
def server(request: pytest.FixtureRequest, unavailable: Any) -> Iterator[Any]:
    """A broker that runs; ``None``: the table alone."""
    with running(request.param, unavailable) as broker:
        yield broker


class Fleet:
    """A gateway here, workers as processes, and what was accepted."""

    def __init__(self, url: str, server: Any, folder: Path) -> None:
        self.url = url
        self.server = server
        self.folder = folder
        self.name = f"{NAME}-{folder.name}"
        self.database = Database(parse_database_url(url), pool=4)
        self.wakeup = Wakeup()
        kind, at = (server.kind, server.url) if server else ("sql", "")
        self.arguments = (url, kind, at, self.name)
        self.queue = make_queue(
            self.database,
            self.name,
            scope=self.name,
            address=queue_address(kind, at or None),
            consumer="gateway",
            lease=3.0,
            wakeup=self.wakeup,
            now=utc_now,
        )
        self.intake = Intake(self.database, self.queue, self.name, self.wakeup)
        self.accepted: list[Any] = []
        self.poison: set[str] = set()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def start_worker(self, environ: Mapping[str, str]) -> None:
        self.started += 1
        output = self.folder / f"worker-{self.started}"
        with output.with_suffix(".stored").open("wb") as stored, output.with_suffix(".log").open("wb") as log:
            command = [sys.executable, str(HERE / "queue_worker.py"), *self.arguments]
            self.workers.append(subprocess.Popen(command, stdout=stored, stderr=log, env=dict(environ)))

    def kill_worker(self) -> None:
        victim = self.workers.pop(0)
        victim.kill()
        victim.wait(10)

    async def say(self, text: str, conversation: str | None = None) -> Any | None:
        """Send a message; what was accepted, if it was."""
        at = utc_now()
        known = conversation or new_id("conv", at)
        incoming = Incoming(new_id("task", at), new_id("msg", at), "c", known, conversation is None, text, at)
        try:
            await self.intake.accept(incoming)
        except StorageUnavailableError:
            return None
        accepted = Accepted(incoming.task_id, known)
        self.accepted.append(accepted)
        if text == "poison":
            self.poison.add(incoming.task_id)
        return accepted

    async def load(self, seconds: float, each: float = 0.1) -> None:
        """Messages at a steady rate, no fewer on a slow machine: conversations of three turns, no reply waited for."""
        end = time.monotonic() + seconds
        number, current = 0, None
        while time.monotonic() < end or len(self.accepted) <= ENOUGH:
            got = await self.say("hello", current.conversation if current and number % 3 else None)
            number, current = number + 1, got
            await asyncio.sleep(each)

    async def ended(self) -> list[Any]:
        """All tasks as the database has them."""
        reply = and_(
            messages.c.conversation_id == tasks.c.conversation_id,
            messages.c.turn == tasks.c.turn,
            messages.c.role == AGENT,
        )
        query = select(
            tasks.c.id, tasks.c.conversation_id, tasks.c.turn, tasks.c.state, messages.c.created_at
        ).outerjoin(messages, reply)
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        return [Ended(*row[:4], row.created_at.timestamp() if row.created_at else None) for row in rows]

    async def settled(self, *only: str, within: float = PATIENCE) -> float:
        """Wait until everything accepted (or only these tasks) has ended; how long that took."""
        started = time.monotonic()
        wanted = set(only) or {one.task for one in self.accepted}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while wanted - {one.task for one in await self.ended() if one.state in {"done", "dead"}}:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
        return time.monotonic() - started

    async def faults(self) -> list[str]:
        stored = [line for path in self.folder.glob("*.stored") for line in path.read_text().splitlines()]
        found: list[str] = faults(History(self.accepted, await self.ended(), stored, self.poison))
        return found


@pytest.fixture
async def fleet(server: Any, postgresql: Any, tmp_path: Path, monkeypatch: Any) -> AsyncIterator[Fleet]:
    """A fleet without workers."""
    for name, value in getattr(server, "credentials", {}).items():
        monkeypatch.setenv(name, value)
    made = Fleet(postgresql.new_database(), server, tmp_path)
    await migrate(made.database)
    relaying = asyncio.create_task(made.queue.run())
    yield made
    relaying.cancel()
    await asyncio.gather(relaying, return_exceptions=True)
    while made.workers:
        made.kill_worker()
    await made.queue.close()
    await made.database.close()


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of worker processes."""
    import os  # noqa: PLC0415 - read once the fleet's fixture has set it

    return {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "agent_runtime")}


async def test_workers_are_killed(fleet: Fleet, environ: dict[str, str]) -> None:
    """Nothing accepted is lost, each is answered once and in order, and only the poison is given up.

    Workers are killed with -9 every two seconds under load, with poison and duplicates among the messages.
    """
    for _ in range(3):
        fleet.start_worker(environ)
    await fleet.say("poison")
    loading = asyncio.create_task(fleet.load(9))
    for _ in range(4):
        await asyncio.sleep(2)
        fleet.kill_worker()
        fleet.start_worker(environ)
        if isinstance(fleet.queue, BrokeredQueue):
            await fleet.queue._broker.send([one.task.encode() for one in fleet.accepted[-20:]])
    await fleet.say("poison")
    await loading
    await fleet.settled()
    assert len(fleet.accepted) > ENOUGH
    assert await fleet.faults() == []
    assert await fleet.queue.depth() == 0


async def test_the_broker_is_restarted(fleet: Fleet, environ: dict[str, str], server: Any, postgresql: Any) -> None:
    """Half a minute after a broker was killed and started again under load, messages are answered as before.

    What was accepted before and meanwhile is neither lost nor doubled nor out of order.
    """
    for _ in range(2):
        fleet.start_worker(environ)
    loading = asyncio.create_task(fleet.load(14))
    await asyncio.sleep(10)
    if server is None:
        await asyncio.to_thread(postgresql.stop)
        await asyncio.to_thread(postgresql.start)
    else:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    fresh = None
    async with asyncio.timeout(RESUMES):
        while fresh is None:
            fresh = await fleet.say("are you there?")
    assert await fleet.settled(fresh.task, within=RESUMES) < RESUMES
    await loading
    await fleet.settled()
    assert len(fleet.accepted) > ENOUGH
    assert await fleet.faults() == []
