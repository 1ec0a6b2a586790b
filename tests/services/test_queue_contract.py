"""One contract for every queue: the table alone on SQLite and PostgreSQL, and each broker with PostgreSQL behind it.

The clock is the test's, so leases and pauses pass without waiting; only what a broker itself takes is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity
from aiobotocore.session import get_session
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis
from sqlalchemy import insert, select

from supportfleet_runtime.checklist import queue_round_trip
from supportfleet_runtime.checklist.subject import make_subject
from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.broker import BrokerUnavailableError
from supportfleet_runtime.queue.brokered import BrokeredQueue
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.port import Lease, Queue, QueueItem
from supportfleet_runtime.queue.settings import (
    QueueAddress,
    broker_name,
    kafka_address,
    queue_address,
    sqs_address,
)
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.schema import conversations, tasks
from supportfleet_runtime.storage.url import parse_database_url

_brokers = runpy.run_path(str(Path(__file__).with_name("queue_brokers.py")))
SERVERS, running = _brokers["SERVERS"], _brokers["running"]

LEASE = 30.0
PATIENCE = 30.0
"""How long a broker may take to deliver what it has."""
BY_PRIORITY = frozenset({"sqlite", "postgresql"})
"""Where the order can be told. RabbitMQ has two priorities from 4.0 on, and gives the lower one every third turn."""
BACKENDS = ("sqlite", "postgresql", *SERVERS)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(backend: str, unavailable: Any) -> Iterator[Any]:
    """The backend's broker, where it has one."""
    with running(backend, unavailable) as broker:
        yield broker


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'runtime.db'}"
    return str(request.getfixturevalue("postgresql").new_database())


class World:
    """Queues of one database and one broker, as many processes have them."""

    def __init__(self, database: Database, address: QueueAddress, clock: Any) -> None:
        self.database = database
        self.address = address
        self.clock = clock
        self.run = uuid.uuid4().hex[:8]
        self.opened: list[Queue] = []

    def queue(self, name: str = "q") -> Queue:
        """A process's own queue of that name."""
        scope = f"ns-{self.run}/agent"
        made = make_queue(
            self.database,
            f"{scope}/{name}",
            scope=scope,
            address=self.address,
            consumer="test",
            lease=LEASE,
            wakeup=Wakeup(),
            now=self.clock,
        )
        self.opened.append(made)
        return made

    async def put(self, queue: Queue, *turns: str, urgent: bool = False) -> None:
        """Publish items named by conversation and turn, such as "a1"."""
        items = [QueueItem(turn, turn[:-1], int(turn[-1]), self.clock(), urgent=urgent) for turn in turns]

        def work(connection: Any) -> None:
            known = set(connection.execute(select(conversations.c.id)).scalars())
            now = self.clock()
            common = {"scope": "s", "customer_id": "c", "turns": 1, "created_at": now, "updated_at": now}
            for name in {item.conversation_id for item in items} - known:
                connection.execute(insert(conversations), {"id": name, **common})
            queue.publish(connection, items)

        await self.database.write(work)

    async def ack(self, queue: Queue, *leases: Lease, dead: bool = False) -> set[str]:
        return await self.database.write(lambda connection: queue.ack(connection, leases, dead=dead))

    async def state(self, id_: str) -> tuple[Any, ...]:
        query = select(tasks.c.state, tasks.c.tries, tasks.c.error).where(tasks.c.id == id_)
        return tuple(await self.database.read(lambda connection: connection.execute(query).one()))


@pytest.fixture
async def world(database_url: str, server: Any, clock: Any, monkeypatch: Any) -> AsyncIterator[World]:
    """A world with nothing in it."""
    for name, value in getattr(server, "credentials", {}).items():
        monkeypatch.setenv(name, value)
    database = Database(parse_database_url(database_url))
    await migrate(database)
    address = queue_address(server.kind if server else "sql", server.url if server else None)
    made = World(database, address, clock)
    yield made
    for queue in made.opened:
        await queue.close()
    await database.close()


async def take(queue: Queue, number: int, limit: int = 100) -> list[Lease]:
    """Exactly ``number`` leases, as they come."""
    got: list[Lease] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < number:
            await relay(queue)
            got += await queue.receive(min(limit, number - len(got)))
    return got


async def nothing(queue: Queue) -> bool:
    """Whether there is nothing to be had, after everything that is due was sent."""
    await relay(queue)
    return not await queue.receive(100)


async def relay(queue: Queue) -> None:
    if isinstance(queue, BrokeredQueue):
        await queue.relay()


def ids(leases: Collection[Lease]) -> set[str]:
    return {lease.id for lease in leases}


class TestLeasing:
    async def test_each_item_has_one_worker(self, world: World) -> None:
        """However many processes take at the same time, each item goes to exactly one, and nothing is left."""
        first, *others = [world.queue() for _ in range(3)]
        names = [f"c{number}x1" for number in range(60)]
        await world.put(first, *names)
        await relay(first)  # RabbitMQ takes it ill when three declare a new queue at the same moment
        taken: list[str] = []

        async def work(queue: Queue) -> None:
            while len(taken) < len(names):
                await relay(queue)
                taken.extend(lease.id for lease in await queue.receive(7))

        await asyncio.wait_for(asyncio.gather(*(work(queue) for queue in (first, *others))), PATIENCE)
        assert sorted(taken) == sorted(names)
        assert await nothing(first)
        assert await first.depth() == 0

    async def test_a_lost_lease_goes_to_another(self, world: World) -> None:
        """A worker that fell silent is replaced after its lease, and can then neither extend nor end it."""
        silent, other = world.queue(), world.queue()
        await world.put(silent, "a1")
        (old,) = await take(silent, 1)
        world.clock.advance(LEASE - 1)
        assert await nothing(other)
        await silent.close()
        world.clock.advance(1)
        (new,) = await take(other, 1)
        assert (old.tries, new.tries) == (1, 2)
        assert await silent.extend([old]) == set()
        assert await world.ack(silent, old) == set()
        assert await world.ack(other, new) == {"a1"}

    async def test_a_heartbeat_keeps_a_lease(self, world: World) -> None:
        """While it is extended nobody else gets the item, however long the work takes."""
        queue = world.queue()
        await world.put(queue, "a1")
        (lease,) = await take(queue, 1)
        for _ in range(4):
            world.clock.advance(LEASE - 1)
            assert await queue.extend([lease]) == {"a1"}
        assert await nothing(queue)
        assert await world.ack(queue, lease) == {"a1"}

    async def test_what_was_not_taken_outlives_the_process(self, world: World) -> None:
        """Items wait for the next process when the one that published them is gone."""
        first = world.queue()
        await world.put(first, "a1", "b1", "c1")
        await take(first, 1, limit=1)
        await first.close()
        assert len(await take(world.queue(), 2)) == 2

    async def test_queues_are_apart(self, world: World) -> None:
        """A revision's worker takes what is its own revision's."""
        one, other = world.queue("rone"), world.queue("rother")
        await world.put(one, "a1")
        await world.put(other, "b1")
        assert ids(await take(other, 1)) == {"b1"}
        assert await nothing(other)
        assert (await one.depth(), await other.depth()) == (1, 0)

    async def test_what_a_revision_left_is_worked(self, world: World) -> None:
        """Tasks of a revision that is gone go to another of the same agent, those in hand after their leases."""
        gone, alive = world.queue("rgone"), world.queue("ralive")
        await world.put(gone, "a1", "b1")
        await take(gone, 1, limit=1)
        assert await nothing(alive)
        await gone.close()
        world.clock.advance(LEASE + 31)  # sent at the start, due again after half a minute, left for another while
        assert ids(await take(alive, 2)) == {"a1", "b1"}


class TestPublishing:
    async def test_it_is_published_with_its_transaction(self, world: World) -> None:
        """An item whose transaction fails was never there."""
        queue = world.queue()

        def work(connection: Any) -> None:
            queue.publish(connection, [QueueItem("a1", "a", 1, world.clock())])
            raise KeyError

        with contextlib.suppress(KeyError, StorageError):
            await world.database.write(work)
        assert await nothing(queue)
        assert await queue.depth() == 0

    async def test_a_duplicate_is_worked_once(self, world: World) -> None:
        """Publishing the same item again is refused, and a broker that delivers it twice has it worked once."""
        queue = world.queue()
        await world.put(queue, "a1", "b1")
        with pytest.raises(StorageError):
            await world.put(queue, "a1")
        if isinstance(queue, BrokeredQueue):
            await queue._broker.send([b"a1", b"b1", b"a1"])
        leases = await take(queue, 2)
        assert await world.ack(queue, *leases) == {"a1", "b1"}
        for _ in range(3):
            assert await nothing(queue)


class TestOrder:
    async def test_a_conversation_is_worked_in_turn(self, world: World) -> None:
        """The second turn waits for the first to end; other conversations don't."""
        queue = world.queue()
        await world.put(queue, "a1", "a2", "a3", "b1")
        first = await take(queue, 2)
        assert ids(first) == {"a1", "b1"}
        assert await nothing(queue)
        await world.ack(queue, *first)
        assert ids(await take(queue, 1)) == {"a2"}

    async def test_a_retried_turn_still_comes_first(self, world: World) -> None:
        """A turn that waits for its retry holds back the later ones; one that was given up doesn't."""
        queue = world.queue()
        await world.put(queue, "a1", "a2")
        (lease,) = await take(queue, 1)
        await queue.retry(lease, 10, "TimeoutError")
        assert await nothing(queue)
        world.clock.advance(10)
        (again,) = await take(queue, 1)
        assert again.id == "a1"
        assert await world.ack(queue, again, dead=True) == {"a1"}
        assert ids(await take(queue, 1)) == {"a2"}


class TestPriority:
    async def test_what_is_urgent_comes_first(self, world: World, backend: str) -> None:
        """What is urgent goes before what came shortly before it, where the backend knows priorities.

        Where it doesn't, everything is worked all the same.
        """
        queue = world.queue()
        names = [f"c{number}x1" for number in range(5)]
        await world.put(queue, *names)
        world.clock.advance(5)
        await world.put(queue, "urgent1", urgent=True)
        leases = [await take(queue, 1, limit=1) for _ in range(6)]
        order = [lease.id for (lease,) in leases]
        assert sorted(order) == sorted([*names, "urgent1"])
        if backend in BY_PRIORITY:
            assert order[0] == "urgent1"

    async def test_nothing_starves(self, world: World, backend: str) -> None:
        """However much comes that is urgent, what has waited half a minute longer goes before it."""
        queue = world.queue()
        await world.put(queue, "old1")
        world.clock.advance(31)
        await world.put(queue, *(f"u{number}x1" for number in range(5)), urgent=True)
        taken = [lease.id for _ in range(6) for lease in await take(queue, 1, limit=1)]
        assert len(set(taken)) == 6
        if backend in BY_PRIORITY:
            assert taken[0] == "old1"

    async def test_a_later_turn_waits_however_urgent(self, world: World) -> None:
        """Turns of one conversation stay in order."""
        queue = world.queue()
        await world.put(queue, "a1")
        await world.put(queue, "a2", urgent=True)
        (first,) = await take(queue, 1)
        assert first.id == "a1"
        assert await nothing(queue)
        await world.ack(queue, first)
        assert ids(await take(queue, 1)) == {"a2"}

    async def test_what_is_urgent_is_not_taken_for_left(self, world: World) -> None:
        """Another revision takes over what has been left, and not what is only ahead of its time."""
        own, other = world.queue("rown"), world.queue("rother")
        await world.put(own, "a1", urgent=True)
        assert await nothing(other)
        assert ids(await take(own, 1)) == {"a1"}


class TestEnding:
    async def test_a_retry_waits_and_counts(self, world: World) -> None:
        """A failed item comes back after its pause, not before, with one more try and the error's name."""
        queue = world.queue()
        await world.put(queue, "a1")
        (lease,) = await take(queue, 1)
        await queue.retry(lease, 5, "TimeoutError")
        world.clock.advance(4)
        assert await nothing(queue)
        assert await queue.depth() == 1
        world.clock.advance(1)
        (again,) = await take(queue, 1)
        assert again.tries == 2
        assert await world.state("a1") == ("leased", 2, "TimeoutError")

    async def test_a_release_does_not_count(self, world: World) -> None:
        """What is given back is there at once, for anyone, and has not been tried."""
        queue, other = world.queue(), world.queue()
        await world.put(queue, "a1")
        await queue.release(await take(queue, 1))
        await queue.close()
        (again,) = await take(other, 1)
        assert again.tries == 1

    async def test_one_poison_item_stops_nobody(self, world: World) -> None:
        """An item that always fails ends dead after its tries; the rest of its batch is done at the first."""
        queue = world.queue()
        await world.put(queue, *(f"c{number}x1" for number in range(20)), "poison1")
        done: list[str] = []
        dead: list[Lease] = []

        async def handle(lease: Lease) -> None:
            if lease.id == "poison1":
                raise ValueError
            await world.ack(queue, lease)
            done.append(lease.id)

        async def give_up(lease: Lease) -> None:
            await world.ack(queue, lease, dead=True)
            dead.append(lease)

        async with working(world, queue, handle, give_up):
            await until(lambda: len(done) == 20)
            while not dead:
                world.clock.advance(2)
                await asyncio.sleep(0.1)
        assert [(lease.id, lease.tries) for lease in dead] == [("poison1", 3)]
        assert (await world.state("poison1"))[:2] == ("dead", 3)
        assert len(set(done)) == len(done)


@pytest.mark.parametrize("backend", list(SERVERS), indirect=True, scope="module")
class TestBroker:
    async def test_what_is_no_task_stops_nobody(self, world: World) -> None:
        """Messages that are no task's id are put aside, and come no more; the tasks among them are worked."""
        queue = world.queue()
        assert isinstance(queue, BrokeredQueue)
        await queue._broker.send([b"no task, but a sentence", b"\xc3\xa4" * 40, b"unknown1"])
        await world.put(queue, "a1")
        assert ids(await take(queue, 1)) == {"a1"}
        for _ in range(3):  # a broker may deliver them one by one
            assert await nothing(queue)
        assert not await queue._broker.receive(10, 1.0)

    async def test_tasks_are_there_when_the_broker_comes_back(self, world: World, server: Any) -> None:
        """While the broker is away messages are accepted; when it is back they are worked, with no one's help."""
        queue = world.queue()
        await world.put(queue, "a1")
        (lease,) = await take(queue, 1)
        server.stop()
        try:
            await world.put(queue, "b1")
            with pytest.raises(BrokerUnavailableError):
                await relay(queue)
            assert await queue.depth() == 1
            assert await world.ack(queue, lease) == {"a1"}, "what is in hand is finished without the broker"
        finally:
            server.start()
        world.clock.advance(1)
        async with asyncio.timeout(PATIENCE):
            leases: list[Lease] = []
            while not leases:
                world.clock.advance(1)
                with contextlib.suppress(BrokerUnavailableError):
                    await relay(queue)
                    leases += await queue.receive(10)
        assert ids(leases) == {"b1"}

    async def test_what_the_broker_forgot_is_sent_again(self, world: World) -> None:
        """A task that the broker lost is sent again, at growing intervals while nobody takes it."""
        queue = world.queue()
        assert isinstance(queue, BrokeredQueue)
        sent: list[list[bytes]] = []

        async def forget(bodies: list[bytes], _urgent: set[bytes]) -> None:
            sent.append(bodies)

        send, queue._broker.send = queue._broker.send, forget  # type: ignore[method-assign, assignment]
        await world.put(queue, "a1")
        for _ in range(100):
            await relay(queue)
            world.clock.advance(10)
        assert 4 <= len(sent) <= 8
        queue._broker.send = send  # type: ignore[method-assign]
        world.clock.advance(2000)
        assert ids(await take(queue, 1)) == {"a1"}

    async def test_what_could_not_be_claimed_comes_again(self, world: World) -> None:
        """Messages received while the database is away are not lost, and not worked without it."""
        queue = world.queue()
        assert isinstance(queue, BrokeredQueue)
        await world.put(queue, "a1", "b1")
        await relay(queue)
        claim = queue._store.claim

        async def fail(_ids: Collection[str]) -> Any:
            raise StorageError("the database is away")

        queue._store.claim = fail  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            await take(queue, 1)
        queue._store.claim = claim  # type: ignore[method-assign]
        assert ids(await take(queue, 2)) == {"a1", "b1"}


class TestChecklist:
    async def test_a_round_trip_leaves_nothing(
        self, world: World, server: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The checklist's task goes through each queue and back; its scratch queue is gone from table and broker."""
        monkeypatch.setattr("secrets.token_hex", lambda number=8: "ab" * number)
        name = broker_name(f"checklist-{'ab' * 8}")
        environ = {"DATABASE_URL": database_url, "CONFIG_DIR": "/nonexistent"}
        if server:
            environ |= {"QUEUE_TYPE": server.kind, "QUEUE_URL": server.url}
        outcome = await queue_round_trip.check(make_subject(environ, None, world.clock))
        assert outcome.verdict == "PASS", outcome.reason
        rows = await world.database.read(lambda connection: connection.execute(select(tasks.c.id)).all())
        assert not rows
        assert not [one for one in await names(world.address) if name in one]
        outcome = await queue_round_trip.check(make_subject(environ, None, world.clock))
        assert outcome.verdict == "PASS", "the name can be used again"


async def names(address: QueueAddress) -> list[str]:
    """What the broker has of queues, streams or topics."""
    if address.type == "redis":
        client = Redis.from_url(address.url)
        found = [str(key) for key in await client.keys("*")]
        await client.aclose()
        return found
    if address.type == "kafka":
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_address(address.url).servers)
        await admin.start()
        found = list(await admin.list_topics())
        await admin.close()
        return found
    if address.type == "sqs":
        at = sqs_address(address.url)
        async with get_session().create_client("sqs", region_name=at.region, endpoint_url=at.endpoint) as sqs:
            return list((await sqs.list_queues()).get("QueueUrls", ()))
    if address.type == "rabbitmq":
        async with await aio_pika.connect(address.url) as connection:
            return [name async for name in _declared(connection)]
    return []


async def _declared(connection: Any) -> AsyncIterator[str]:
    """Which of the scratch queue's names are there: RabbitMQ tells that by name alone."""
    scratch = broker_name(f"checklist-{'ab' * 8}")
    for name in (scratch, f"{scratch}.dead"):
        with contextlib.suppress(ChannelNotFoundEntity):
            channel = await connection.channel()
            await channel.declare_queue(name, passive=True)
            yield name


@contextlib.asynccontextmanager
async def working(
    world: World, queue: Queue, handle: Callable[[Lease], Any], give_up: Callable[[Lease], Any]
) -> AsyncIterator[Worker]:
    """A worker with the queue's background work."""
    worker = Worker(
        queue=queue,
        handle=handle,
        give_up=give_up,
        wakeup=Wakeup(),
        settings=WorkerSettings(batch=10, visibility=60.0, lease=LEASE, max_tries=3, poll=0.05),
        metrics=Metrics(),
    )
    background = [asyncio.create_task(worker.run()), asyncio.create_task(queue.run())]
    try:
        yield worker
    finally:
        await worker.stop(5)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds are awaited
            await asyncio.sleep(0.01)
