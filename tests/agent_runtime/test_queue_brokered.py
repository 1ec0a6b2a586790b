from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from sqlalchemy import insert

from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.broker import Backend, Broker, BrokerUnavailableError, Delivery
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.port import Lease, QueueItem
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import conversations


class BrokenError(Exception):
    """What a library raises when its server is gone."""


class MemoryBroker:
    """A broker in memory, and a link to it. ``broken`` is how many calls fail."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self.broken = 0
        self.connections = 0
        self.closed = 0
        self.rejected: list[bytes] = []

    async def connect(self) -> MemoryBroker:
        self.connections += 1
        return self

    async def send(self, bodies: Sequence[bytes], urgent: Collection[bytes] = ()) -> None:
        self._use()
        for body in bodies:
            self.waiting.put_nowait(body)

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        self._use()
        got: list[Delivery] = []
        try:
            async with asyncio.timeout(wait):
                got.append(Delivery(await self.waiting.get(), None))
        except TimeoutError:
            return ()
        while len(got) < limit and not self.waiting.empty():
            got.append(Delivery(self.waiting.get_nowait(), None))
        return got

    async def settle(self, done: Sequence[Delivery], rejected: Sequence[Delivery]) -> None:
        self._use()
        self.rejected += [delivery.body for delivery in rejected]

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.waiting.put_nowait(delivery.body)

    async def close(self) -> None:
        self.closed += 1

    def _use(self) -> None:
        if self.broken:
            self.broken -= 1
            raise BrokenError


@pytest.fixture
def memory() -> MemoryBroker:
    return MemoryBroker()


def broker(memory: MemoryBroker, patience: float = 0.0) -> Broker:
    return Broker(Backend(memory.connect, (BrokenError,), patience))


class TestConnection:
    async def test_it_is_made_when_needed_and_kept(self, memory: MemoryBroker) -> None:
        """Nothing is opened before the first call, and one connection serves all."""
        made = broker(memory)
        assert memory.connections == 0
        await asyncio.gather(*(made.send([b"a"]) for _ in range(5)))
        assert memory.connections == 1
        await made.close()
        await made.close()
        assert memory.closed == 1

    async def test_a_failure_ends_it_and_the_next_call_makes_another(self, memory: MemoryBroker) -> None:
        """What the library raises becomes one error, and a connection that failed is not used again."""
        made = broker(memory)
        memory.broken = 1
        with pytest.raises(BrokerUnavailableError, match="BrokenError"):
            await made.send([b"a"])
        assert memory.closed == 1
        await made.send([b"a"])
        assert memory.connections == 2

    async def test_a_library_may_mend_its_own(self, memory: MemoryBroker) -> None:
        """A connection that mends itself outlives a failure, but not for ever."""
        patient = broker(memory, patience=0.05)
        memory.broken = 2
        for closed in (0, 1):
            with pytest.raises(BrokerUnavailableError):
                await patient.send([b"a"])
            assert memory.closed == closed
            await asyncio.sleep(0.06)

    async def test_a_bug_is_no_outage(self, memory: MemoryBroker) -> None:
        """An error that the library doesn't raise for outages is not taken for one."""

        async def wrong(_bodies: Sequence[bytes], _urgent: Collection[bytes]) -> None:
            raise KeyError

        memory.send = wrong  # type: ignore[method-assign, assignment]
        with pytest.raises(KeyError):
            await broker(memory).send([b"a"])


class Setup:
    """A brokered queue over a memory broker."""

    def __init__(self, database: Database, memory: MemoryBroker, clock: Any) -> None:
        self.database = database
        self.clock = clock
        self.wakeup = Wakeup()
        self.store = SqlQueue(database, "q", lease=30.0, now=clock)
        self.queue = BrokeredQueue(self.store, broker(memory), self.wakeup)

    async def put(self, *names: str) -> None:
        now = self.clock()
        common = {"scope": "s", "customer_id": "c", "turns": 1, "created_at": now, "updated_at": now}

        def work(connection: Any) -> None:
            connection.execute(insert(conversations), [{"id": name, **common} for name in names])
            self.queue.publish(connection, [QueueItem(name, name, 1, now) for name in names])

        await self.database.write(work)
        self.wakeup.notify()

    async def ack(self, lease: Lease) -> set[str]:
        return await self.database.write(lambda connection: self.queue.ack(connection, [lease]))


@pytest.fixture
def setup(database: Database, memory: MemoryBroker, clock: Any) -> Setup:
    return Setup(database, memory, clock)


class TestRelay:
    async def test_a_message_is_sent_when_the_bell_rings(self, setup: Setup, memory: MemoryBroker) -> None:
        """The relay hears of a message at once, and sends it once."""
        relaying = asyncio.create_task(setup.queue.run())
        await setup.put("a", "b")
        assert {await asyncio.wait_for(memory.waiting.get(), 5) for _ in range(2)} == {b"a", b"b"}
        setup.wakeup.notify()
        await asyncio.sleep(0.05)
        assert memory.waiting.empty()
        relaying.cancel()

    async def test_what_could_not_be_sent_is_sent_soon(self, setup: Setup, memory: MemoryBroker) -> None:
        """A broker that fails costs a second, not half a minute."""
        await setup.put("a")
        memory.broken = 1
        with pytest.raises(BrokerUnavailableError):
            await setup.queue.relay()
        assert await setup.queue.relay() == 0
        setup.clock.advance(1)
        assert await setup.queue.relay() == 1

    async def test_a_relay_that_dies_before_sending_loses_nothing(self, setup: Setup, memory: MemoryBroker) -> None:
        """A task that was marked as sent, and never was, is sent after half a minute."""
        await setup.put("a")
        assert await setup.store.take_unsent(10) == {"a": False}
        setup.clock.advance(29)
        assert await setup.queue.relay() == 0
        setup.clock.advance(1)
        assert await setup.queue.relay() == 1

    async def test_a_lost_acknowledgement_is_no_second_answer(self, setup: Setup, memory: MemoryBroker) -> None:
        """When acknowledging fails the claim stands, and the message that comes again is refused."""
        await setup.put("a")
        await setup.queue.relay()
        receive = memory.receive

        async def then_break(limit: int, wait: float) -> Sequence[Delivery]:
            got = await receive(limit, wait)
            memory.broken = 1
            return got

        memory.receive = then_break  # type: ignore[method-assign]
        (lease,) = await setup.queue.receive(10)
        memory.receive = receive  # type: ignore[method-assign]
        memory.waiting.put_nowait(b"a")
        assert await setup.queue.receive(10) == []
        assert await setup.ack(lease) == {"a"}

    async def test_what_could_not_be_claimed_goes_back(self, setup: Setup, memory: MemoryBroker) -> None:
        """Messages that were received while the database was away are the broker's again at once."""
        await setup.put("a")
        await setup.queue.relay()

        async def fail(_ids: Collection[str]) -> Sequence[Lease]:
            raise StorageUnavailableError("gone")

        setup.store.claim = fail  # type: ignore[method-assign]
        with pytest.raises(StorageUnavailableError):
            await setup.queue.receive(10)
        assert memory.waiting.get_nowait() == b"a"


class TestWorker:
    async def test_what_arrives_while_it_stops_is_given_back(self, setup: Setup) -> None:
        """A worker that was told to stop while it waited for messages leaves them for others."""
        handled: list[str] = []

        async def handle(lease: Lease) -> None:
            handled.append(lease.id)

        settings = WorkerSettings(batch=10, visibility=60, lease=30, max_tries=3)
        worker = Worker(
            queue=setup.queue,
            handle=handle,
            give_up=handle,
            wakeup=setup.wakeup,
            settings=settings,
            metrics=Metrics(),
        )
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(worker.stop(5))
        await asyncio.sleep(0)
        await setup.put("a")
        await setup.queue.relay()
        await asyncio.gather(stopping, running)
        assert not handled
        await setup.queue.relay()
        (lease,) = await setup.queue.receive(10)
        assert lease.tries == 1


class TestAdoption:
    async def take(self, queue: SqlQueue) -> Collection[str]:
        return {lease.id for lease in await queue.receive(10)}

    @pytest.mark.parametrize("name", ["ns/agent", "ns/agent/rnew"])
    async def test_only_the_agents_own_and_only_what_is_left(self, setup: Setup, clock: Any, name: str) -> None:
        """Tasks of a revision that is gone are worked after a while; another agent's never are."""
        queues = {
            given: SqlQueue(setup.database, given, lease=30.0, now=clock, scope="ns/agent")
            for given in ("ns/agent/rold", "ns/agentic", "ns/agent2/r", "other")
        }
        for number, queue in enumerate(queues.values()):
            setup.queue._store = queue
            await setup.put(f"t{number}")
        heir = SqlQueue(setup.database, name, lease=30.0, now=clock, scope="ns/agent")
        assert await self.take(heir) == set()
        clock.advance(14)
        assert await self.take(heir) == set()
        clock.advance(1)
        assert await self.take(heir) == {"t0"}
        assert await queues["ns/agent/rold"].depth() == 0
