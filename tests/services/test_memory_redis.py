"""The memory of conversations in a real Redis, which is killed and comes back."""

from __future__ import annotations

import asyncio
import runpy
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.agent.turn import Exchange
from supportfleet_runtime.app import utc_now
from supportfleet_runtime.conversations import shared_memory
from supportfleet_runtime.conversations.memory import Said
from supportfleet_runtime.conversations.shared_memory import SharedMemory
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.storage.erasure import Erasure

_brokers = runpy.run_path(str(Path(__file__).parent / "queue_brokers.py"))
SAID = Said(0, 1, (Exchange("hello", "hi", 1),))


@pytest.fixture
def redis(unavailable: Any) -> Iterator[Any]:
    """A Redis of the test's own."""
    try:
        server = _brokers["RedisServer"]()
    except _brokers["MissingError"] as error:
        unavailable(error.what, error.how)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite is enough: what is tested is Redis."""
    return f"sqlite:///{tmp_path / 'runtime.db'}"


@pytest.fixture
async def pods(redis: Any) -> AsyncIterator[list[SharedMemory]]:
    """Two processes' access to it."""
    opened = [SharedMemory(redis.url, "shop/helper", 60) for _ in range(2)]
    running = [asyncio.create_task(one.run()) for one in opened]
    yield opened
    for task in running:
        task.cancel()
    for one in opened:
        await one.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is slow, as on a busy machine, is none that is away."""
    monkeypatch.setattr(shared_memory, "SECONDS", 5.0)


async def until(condition: Any, seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await condition()):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)
        return value


class TestSharing:
    @pytest.mark.usefixtures("patient")
    async def test_what_one_pod_wrote_another_reads(self, pods: list[SharedMemory]) -> None:
        """An entry is there for every pod, until it is forgotten or its time is over."""
        here, there = pods
        here.put({"conv_1": SAID, "conv_2": SAID})
        assert await until(lambda: there.get(["conv_1"])) == {"conv_1": SAID}
        assert 0 < await there._client.ttl(there._key("conv_1")) <= 60
        await there.forget(["conv_1"])
        assert await here.get(["conv_1", "conv_2"]) == {"conv_2": SAID}

    @pytest.mark.usefixtures("patient")
    async def test_it_is_away_and_comes_back(self, redis: Any, pods: list[SharedMemory], monkeypatch: Any) -> None:
        """While Redis is gone nothing is known and nothing fails but forgetting; afterwards it is used again."""
        here, there = pods
        for pod in pods:
            pod._breaker._pause = 0.2
        redis.kill()
        for _ in range(5):
            assert await here.get(["conv_1"]) == {}
            here.put({"conv_1": SAID})
        with pytest.raises(StorageUnavailableError):
            await here.forget(["conv_1"])
        redis.start()

        async def written() -> Any:
            here.put({"conv_3": SAID})
            return await there.get(["conv_3"])

        assert await until(written) == {"conv_3": SAID}

    async def test_one_that_hangs_costs_a_quarter_of_a_second(self, redis: Any, pods: list[SharedMemory]) -> None:
        """A Redis that takes connections and doesn't answer holds up a look for no longer than its limit."""
        await pods[0].get(["conv_1"])
        _brokers["os"].kill(redis._process.pid, _brokers["signal"].SIGSTOP)
        try:
            started = time.monotonic()
            for _ in range(20):
                assert await pods[0].get(["conv_1"]) == {}
            assert time.monotonic() - started < 20 * shared_memory.SECONDS, "the breaker spares most of them"
        finally:
            _brokers["os"].kill(redis._process.pid, _brokers["signal"].SIGCONT)


class TestAgents:
    async def test_conversations_go_on_whatever_redis_does(self, start_agent: Any, redis: Any) -> None:
        """Under load on two pods, with Redis killed and restarted, every message is answered, in its conversation."""
        agents = [await start_agent(REDIS_URL=redis.url) for _ in range(2)]
        stop = asyncio.Event()
        replies: list[str] = []

        async def talk(number: int) -> None:
            conversation: dict[str, str] = {}
            turn = 0
            while not stop.is_set():
                agent = agents[(number + turn) % 2]
                said = await agent.say("where is my order?" if turn % 2 == 0 else "A-1001", **conversation)
                conversation = {"conversation_id": said["conversation_id"]}
                replies.append(said["reply"])
                assert ("DHL" in said["reply"]) == (turn % 2 == 1)
                turn += 1

        async def more(than: int) -> bool:
            return len(replies) >= than

        talking = [asyncio.create_task(talk(number)) for number in range(4)]
        for disturb in (lambda: None, redis.kill, redis.start):
            await asyncio.to_thread(disturb)
            goal = len(replies) + 20
            await until(lambda goal=goal: more(goal))
        stop.set()
        await asyncio.gather(*talking)

    @pytest.mark.usefixtures("patient")
    async def test_erasing_reaches_redis(self, start_agent: Any, redis: Any) -> None:
        """After an erasure no key in Redis holds what the customer wrote; without Redis it is not begun."""
        agent = await start_agent(REDIS_URL=redis.url)
        memory = agent.parts.memory
        said = await agent.say("Where is my order? Ada Lovelace")
        await until(lambda: memory.get([said["conversation_id"]]))
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        scope = agent.parts.settings.scope
        erasure = Erasure(agent.parts.database, scope, now=utc_now, pause=pause, forget=memory.forget, settle=1.0)
        redis.kill()
        with pytest.raises(StorageUnavailableError):
            await erasure.erase("cust-1001")
        async with agent.client.get(f"/v1/conversations/{said['conversation_id']}") as got:
            assert got.status == 200
        redis.start()
        erased = await erasure.erase("cust-1001")
        assert erased.finished
        assert erased.removed["messages"] == 2
        assert 1.0 in pauses
        values = [await memory._client.dump(key) async for key in memory._client.scan_iter()]
        assert not any(b"Lovelace" in (value or b"") for value in values)
