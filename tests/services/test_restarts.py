"""A gateway and workers, with load on them, while what they depend on goes away and comes back.

The database is PostgreSQL, the broker Redis Streams, and another Redis keeps rate limits and conversations. Brokers are
restarted in ``test_queue_faults.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database

HERE = Path(__file__).parent
_brokers = runpy.run_path(str(HERE / "queue_brokers.py"))
_history = runpy.run_path(str(HERE / "queue_history.py"))
Accepted, History, faults, read_ended = (_history[name] for name in ("Accepted", "History", "faults", "read_ended"))
logging_as_it_was = runpy.run_path(str(HERE.parent / "agent_runtime" / "conftest.py"))["logging_as_it_was"]

RESUMES = 30.0
"""Within how many seconds of its return messages are answered as before."""
PATIENCE = 120.0
SOME = 15

pytestmark = pytest.mark.timeout(300)


class Load:
    """Messages at a steady rate, however long their answers take."""

    def __init__(self, gateway: Any) -> None:
        self._gateway = gateway
        self.accepted: list[Any] = []
        self.refused = 0
        self.sent = 0

    async def say(self) -> bool:
        """Send a message; whether it was answered at once."""
        body = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
        self.sent += 1
        async with self._gateway.client.post("/v1/messages", json=body) as got:
            if got.status not in {200, 202}:
                self.refused += 1
                return False
            said = await got.json()
        self.accepted.append(Accepted(said["task_id"], said["conversation_id"]))
        return got.status == 200 and "DHL" in said["reply"]

    async def answered(self) -> None:
        """Wait until a message is answered at once."""
        while not await self.say():  # noqa: ASYNC110 - as customers do
            await asyncio.sleep(0.1)

    async def more(self) -> None:
        """Wait until some more messages were sent."""
        goal = self.sent + SOME
        while self.sent < goal:  # noqa: ASYNC110 - the load goes on meanwhile
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Have messages sent meanwhile; at the end each of them has its response."""
        over = asyncio.Event()

        async def send() -> None:
            async with asyncio.TaskGroup() as sending:
                while not over.is_set():
                    sending.create_task(self.say())
                    await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            try:
                yield
            finally:
                over.set()


@pytest.fixture(scope="module")
def broker(unavailable: Any) -> Iterator[Any]:
    with _brokers["running"]("redis", unavailable) as started:
        yield started


@pytest.fixture(scope="module")
def cache(unavailable: Any) -> Iterator[Any]:
    with _brokers["running"]("redis", unavailable) as started:
        yield started


@pytest.fixture
def outages(postgresql: Any, cache: Any) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """How each is taken away, and brought back."""
    return {
        "database": (postgresql.stop, postgresql.start),
        "cache": (cache.kill, cache.start),
    }


@pytest.fixture
async def load(start_agent: Any, broker: Any, cache: Any, tmp_path: Path) -> Load:
    """Load for a gateway with two workers, logging as in production: tracebacks for terminals take seconds."""
    configure_logging("info")
    shared = {
        "AGENT_NAME": tmp_path.name.replace("_", "-"),
        "QUEUE_TYPE": "redis",
        "QUEUE_URL": broker.url,
        "QUEUE_VISIBILITY": "5",
        "REDIS_URL": cache.url,
        "RATE_LIMIT": "100000",
        "API_TIMEOUT_SECONDS": "5",
        "DB_TIMEOUT": "2",
    }
    gateway = await start_agent(Role.GATEWAY, POD_NAME="gateway", **shared)
    for number in range(2):
        await start_agent(Role.WORKER, POD_NAME=f"worker-{number}", **shared)
    return Load(gateway)


@pytest.mark.parametrize("what", ["database", "cache"])
async def test_it_resumes_by_itself(load: Load, outages: Any, database: Database, what: str) -> None:
    """Half a minute after a dependency came back at the latest, messages are answered as before, without a restart.

    What was accepted before and meanwhile has one reply each; and only while the database is away is anybody refused.
    """
    take_away, bring_back = outages[what]
    async with load.going_on():
        await load.answered()
        await asyncio.to_thread(take_away)
        try:
            await load.more()
        finally:
            await asyncio.to_thread(bring_back)
        async with asyncio.timeout(RESUMES):
            await load.answered()
        await load.more()
    assert bool(load.refused) == (what == "database")
    await settled(database, {one.task for one in load.accepted})
    assert len(load.accepted) > SOME
    assert faults(History(load.accepted, await read_ended(database), [])) == []


async def settled(database: Database, accepted: set[str]) -> None:
    """Wait until everything accepted has ended; where it doesn't, the checker says what is wrong."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while accepted - {one.task for one in await read_ended(database) if one.replied is not None}:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
