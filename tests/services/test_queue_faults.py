"""Queues while things break: workers that are killed, brokers that are restarted under load.

Workers are processes (``queue_worker.py``), the gateway's part and the tool service run here, and a checker says from
the recorded history whether every accepted message was answered, each once, in order, and whether no order was paid
back twice, or unknown to the ledger (``queue_history.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import runpy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Select, select

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
from supportfleet_runtime.storage.tool_tables import effects, refunds
from supportfleet_runtime.storage.url import parse_database_url

HERE = Path(__file__).parent
_brokers = runpy.run_path(str(HERE / "queue_brokers.py"))
_history = runpy.run_path(str(HERE / "queue_history.py"))
SERVERS, running = _brokers["SERVERS"], _brokers["running"]
Accepted, History, Refunds, faults, read_ended = (
    _history[name] for name in ("Accepted", "History", "Refunds", "faults", "read_ended")
)
SHOP = SimpleNamespace(**runpy.run_path(str(HERE.parents[0] / "agent_runtime" / "tools_shop.py")))

NAME = "ns/agent"
CUSTOMER = "c"
ORDERS = 1000
REFUND = "refund "
RESUMES = 30.0
"""Within how many seconds work goes on after an outage."""
PATIENCE = 75.0
"""Within how many seconds everything has ended: what a broker holds for a dead consumer comes after half a minute."""
COMES_TO_IT = 5.0
"""Within how many seconds a worker pays something back; where they start slowly, one is killed in something else."""
ENOUGH = 30
BACKENDS = ("postgresql", *SERVERS)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, unavailable: Any) -> Iterator[Any]:
    """A broker that runs; ``None``: the table alone."""
    with running(request.param, unavailable) as broker:
        yield broker


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A file where SQLite is what is tested, else a database of PostgreSQL."""
    if request.node.callspec.params["server"] == "sqlite":
        return f"sqlite:///{tmp_path / 'runtime.db'}"
    return str(request.getfixturevalue("postgresql").new_database())


class Fleet:
    """A gateway and a tool service here, workers as processes, and what was accepted."""

    def __init__(self, url: str, server: Any, folder: Path, tools_url: str) -> None:
        self.url = url
        self.server = server
        self.folder = folder
        self.name = f"{NAME}-{folder.name}"
        self.database = Database(parse_database_url(url), pool=4)
        self.wakeup = Wakeup()
        kind, at = (server.kind, server.url) if server else ("sql", "")
        self.arguments = (url, kind, at, self.name, tools_url, SHOP.KEY)
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
        self.asked: dict[str, str] = {}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def start_worker(self, environ: Mapping[str, str]) -> None:
        self.started += 1
        output = self.folder / f"worker-{self.started}"
        with output.with_suffix(".stored").open("wb") as stored, output.with_suffix(".log").open("wb") as log:
            command = [sys.executable, str(HERE / "queue_worker.py"), *self.arguments]
            self.workers.append(
                subprocess.Popen(command, stdout=stored, stderr=log, cwd=self.folder, env=dict(environ))
            )

    async def kill_worker(self) -> None:
        """Kill a worker whose refund was paid, and who doesn't know yet; where none comes to that, the oldest."""
        victims: list[subprocess.Popen[bytes]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMES_TO_IT):
                while not (victims := await self._in_the_middle()):  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(0.03)
        self._kill((victims or self.workers)[0])

    def kill_workers(self) -> None:
        for worker in tuple(self.workers):
            self._kill(worker)

    async def _in_the_middle(self) -> list[subprocess.Popen[bytes]]:
        paid = (await self.refunds()).paid
        asking = {tuple(mark.name.split(".")[:2]) for mark in self.folder.glob("*.refunding")}
        return [one for one in self.workers if any((str(one.pid), order) in asking for order in paid)]

    def _kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.wait(10)
        self.workers.remove(worker)

    async def say(self, text: str, conversation: str | None = None) -> Any | None:
        """Send a message; what was accepted, if it was."""
        at = utc_now()
        known = conversation or new_id("conv", at)
        incoming = Incoming(new_id("task", at), new_id("msg", at), CUSTOMER, known, conversation is None, text, at)
        if text.startswith(REFUND):
            self.asked[incoming.task_id] = text.removeprefix(REFUND)
        try:
            await self.intake.accept(incoming)
        except StorageUnavailableError:
            return None
        accepted = Accepted(incoming.task_id, known)
        self.accepted.append(accepted)
        if text == "poison":
            self.poison.add(incoming.task_id)
        return accepted

    async def load(self, is_over: Callable[[], bool], *, each: float = 0.1, refunds: bool = False) -> None:
        """Messages at a steady rate, no fewer on a slow machine: conversations of three turns, no reply waited for.

        With refunds the last turn of each asks for one, of another order each time.
        """
        number, current = 0, None
        while not is_over() or len(self.accepted) <= ENOUGH:
            text = f"{REFUND}A-{10_000 + number}" if refunds and number % 3 == 2 else "hello"
            got = await self.say(text, current.conversation if current and number % 3 else None)
            number, current = number + 1, got
            await asyncio.sleep(each)

    async def ended(self) -> list[Any]:
        """All tasks as the database has them."""
        return list(await read_ended(self.database))

    async def refunds(self) -> Any:
        """What the tool service paid, and what the agent wrote down."""
        paid = await self._read(select(refunds.c.order_number))
        ledger = await self._read(select(effects.c.task_id, effects.c.state))
        return Refunds(self.asked, [order for (order,) in paid], dict(ledger))

    async def _read(self, query: Select[Any]) -> Sequence[Any]:
        return await self.database.read(lambda connection: connection.execute(query).all())

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
        history = History(self.accepted, await self.ended(), stored, self.poison, await self.refunds())
        found: list[str] = faults(history)
        return found


@pytest.fixture
async def tools_url(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """A tool service that is slow to say what it did, so that many who ask are killed before they know."""
    (tmp_path / "agent_config.json").write_text(json.dumps(SHOP.open_book(ORDERS, CUSTOMER)))
    slow = SHOP.Faults(lambda request: "slow-after" if request.method == "POST" else None)
    async with SHOP.tool_service(database_url, utc_now, str(tmp_path), slow) as url:
        yield url


@pytest.fixture
async def fleet(
    server: Any, database_url: str, tools_url: str, tmp_path: Path, monkeypatch: Any
) -> AsyncIterator[Fleet]:
    """A fleet without workers."""
    for name, value in getattr(server, "credentials", {}).items():
        monkeypatch.setenv(name, value)
    made = Fleet(database_url, server, tmp_path, tools_url)
    await migrate(made.database)
    relaying = asyncio.create_task(made.queue.run())
    yield made
    relaying.cancel()
    await asyncio.gather(relaying, return_exceptions=True)
    made.kill_workers()
    await made.queue.close()
    await made.database.close()


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of worker processes."""
    import os  # noqa: PLC0415 - read once the fleet's fixture has set it

    return {**os.environ, "PYTHONPATH": str(HERE.parents[1] / "agent_runtime")}


@pytest.mark.parametrize("server", [*BACKENDS, "sqlite"], indirect=True)
async def test_workers_are_killed(fleet: Fleet, environ: dict[str, str]) -> None:
    """Nothing accepted is lost, each is answered once and in order, no refund is doubled, only the poison is given up.

    Workers are killed with -9 every two seconds under load, with poison, duplicates and refunds among the messages.
    """
    for _ in range(3):
        fleet.start_worker(environ)
    first = await fleet.say("is anybody there?")
    assert first
    await fleet.settled(first.task)  # the workers have started
    await fleet.say("poison")
    enough = asyncio.Event()
    loading = asyncio.create_task(fleet.load(enough.is_set, refunds=True))
    for _ in range(4):
        await asyncio.sleep(2)
        await fleet.kill_worker()
        fleet.start_worker(environ)
        if isinstance(fleet.queue, BrokeredQueue):
            await fleet.queue._broker.send([one.task.encode() for one in fleet.accepted[-20:]])
    await fleet.say("poison")
    enough.set()
    await loading
    await fleet.settled()
    assert len(fleet.accepted) > ENOUGH
    assert await fleet.faults() == []
    assert len((await fleet.refunds()).paid) >= ENOUGH / 4
    assert await fleet.queue.depth() == 0


@pytest.mark.parametrize("server", BACKENDS, indirect=True)
async def test_the_broker_is_restarted(fleet: Fleet, environ: dict[str, str], server: Any, postgresql: Any) -> None:
    """Half a minute after a broker was killed and started again under load, messages are answered as before.

    What was accepted before and meanwhile is neither lost nor doubled nor out of order.
    """
    for _ in range(2):
        fleet.start_worker(environ)
    first = await fleet.say("is anybody there?")
    over = asyncio.Event()
    loading = asyncio.create_task(fleet.load(over.is_set))
    assert first
    await fleet.settled(first.task)  # the workers have started
    await asyncio.sleep(5)
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
    over.set()
    await loading
    await fleet.settled()
    assert len(fleet.accepted) > ENOUGH
    assert await fleet.faults() == []
