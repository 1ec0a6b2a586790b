from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from supportfleet_runtime.errors import ProviderError, StorageUnavailableError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.port import Lease, QueueItem
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import LONGEST_PAUSE, Pauses, Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import conversations, tasks

LEASE = 30.0


class Setup:
    """Queues of one database, and what is put into them."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database = database
        self.clock = clock
        self.queue = self.named("q")

    def named(self, name: str) -> SqlQueue:
        return SqlQueue(self.database, name, lease=LEASE, now=self.clock)

    async def put(self, *turns: str, queue: SqlQueue | None = None) -> None:
        """Publish items named by conversation and turn, such as "a1"."""
        chosen = queue or self.queue
        items = [QueueItem(turn, turn[:-1], int(turn[-1]), self.clock()) for turn in turns]

        def work(connection: Any) -> None:
            known = set(connection.execute(select(conversations.c.id)).scalars())
            new = {item.conversation_id for item in items} - known
            for name in new:
                now = self.clock()
                row = {"id": name, "scope": "s", "customer_id": "c", "turns": 1, "created_at": now, "updated_at": now}
                connection.execute(insert(conversations), row)
            chosen.publish(connection, items)

        await self.database.write(work)

    async def take(self, limit: int = 100, queue: SqlQueue | None = None) -> list[Lease]:
        return list(await (queue or self.queue).receive(limit))

    async def ack(self, *leases: Lease, dead: bool = False) -> set[str]:
        return await self.database.write(lambda connection: self.queue.ack(connection, leases, dead=dead))

    async def state(self, id_: str) -> tuple[str, int, str | None]:
        query = select(tasks.c.state, tasks.c.tries, tasks.c.error).where(tasks.c.id == id_)
        return tuple(await self.database.read(lambda connection: connection.execute(query).one()))  # type: ignore[arg-type]


@pytest.fixture
def setup(database: Database, clock: Any) -> Setup:
    return Setup(database, clock)


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.id for lease in leases]


class TestLeasing:
    async def test_an_item_has_one_worker(self, setup: Setup) -> None:
        """What one worker holds no other gets."""
        await setup.put("a1", "b1")
        assert ids(await setup.take(1)) == ["a1"]
        assert ids(await setup.take()) == ["b1"]
        assert await setup.take() == []

    async def test_workers_at_once_share_without_overlap(self, setup: Setup) -> None:
        """However many take at the same time, each item goes to exactly one."""
        await setup.put(*(f"c{number}x1" for number in range(60)))
        taken = await asyncio.gather(*(setup.take(7) for _ in range(12)))
        flat = [lease.id for leases in taken for lease in leases]
        assert len(flat) == len(set(flat)) == 60

    async def test_a_lost_lease_comes_back(self, setup: Setup) -> None:
        """A worker that fell silent is replaced after the lease, not before, and its number of tries counts."""
        await setup.put("a1")
        (first,) = await setup.take()
        setup.clock.advance(LEASE - 1)
        assert await setup.take() == []
        setup.clock.advance(1)
        (second,) = await setup.take()
        assert (first.tries, second.tries) == (1, 2)

    async def test_a_lease_is_kept_by_extending(self, setup: Setup) -> None:
        """A heartbeat moves the end of a lease."""
        await setup.put("a1")
        (lease,) = await setup.take()
        setup.clock.advance(LEASE - 1)
        assert await setup.queue.extend([lease]) == {"a1"}
        setup.clock.advance(LEASE - 1)
        assert await setup.take() == []

    async def test_the_silent_worker_finds_out(self, setup: Setup) -> None:
        """Whose lease is another's by now can neither extend nor end it."""
        await setup.put("a1")
        (old,) = await setup.take()
        setup.clock.advance(LEASE)
        (new,) = await setup.take()
        assert await setup.queue.extend([old]) == set()
        assert await setup.ack(old) == set()
        await setup.queue.retry(old, 0, "x")
        await setup.queue.release([old])
        assert await setup.ack(new) == {"a1"}

    async def test_what_has_ended_has_no_holder(self, setup: Setup) -> None:
        """A lease that was ended or given back can't be ended again, though nobody took the item since."""
        await setup.put("a1", "b1")
        first, second = await setup.take()
        assert await setup.ack(first) == {"a1"}
        assert await setup.ack(first) == set()
        await setup.queue.retry(second, 0, "x")
        assert await setup.ack(second) == set()
        assert await setup.queue.extend([second]) == set()

    async def test_queues_are_apart(self, setup: Setup) -> None:
        """A worker takes nothing from another agent's queue."""
        other = setup.named("other")
        await setup.put("a1")
        await setup.put("b1", queue=other)
        assert ids(await setup.take(queue=other)) == ["b1"]
        assert (await setup.queue.depth(), await other.depth()) == (1, 0)

    async def test_it_is_published_with_its_transaction(self, setup: Setup) -> None:
        """An item whose transaction fails was never there."""
        await setup.put("a1")

        def work(connection: Any) -> None:
            setup.queue.publish(connection, [QueueItem("a2", "a", 2, setup.clock())])
            raise KeyError

        with pytest.raises(KeyError):
            await setup.database.write(work)
        assert await setup.queue.depth() == 1


class TestOrder:
    async def test_a_conversation_is_worked_in_turn(self, setup: Setup) -> None:
        """The second turn waits for the first to end; other conversations don't."""
        await setup.put("a1", "a2", "a3", "b1")
        first = await setup.take()
        assert ids(first) == ["a1", "b1"]
        assert await setup.take() == []
        await setup.ack(*first)
        assert ids(await setup.take()) == ["a2"]

    async def test_a_retried_turn_still_comes_first(self, setup: Setup) -> None:
        """A turn that waits for its retry holds back the later ones of its conversation."""
        await setup.put("a1", "a2")
        (lease,) = await setup.take()
        await setup.queue.retry(lease, 10, "Timeout")
        assert await setup.take() == []
        setup.clock.advance(10)
        assert ids(await setup.take()) == ["a1"]

    async def test_a_dead_turn_gives_way(self, setup: Setup) -> None:
        """A turn that was given up no longer holds the others back."""
        await setup.put("a1", "a2")
        assert await setup.ack(*(await setup.take()), dead=True) == {"a1"}
        assert ids(await setup.take()) == ["a2"]

    async def test_the_longest_waiting_come_first(self, setup: Setup) -> None:
        """Items are taken by the time they are due."""
        await setup.put("c1")
        setup.clock.advance(1)
        await setup.put("b1")
        setup.clock.advance(1)
        await setup.put("a1")
        assert ids(await setup.take(1)) == ["c1"]
        assert ids(await setup.take(1)) == ["b1"]


class TestEnding:
    async def test_retry_waits_and_remembers_why(self, setup: Setup) -> None:
        """A failed item comes back after its pause, with the error's name."""
        await setup.put("a1")
        (lease,) = await setup.take()
        await setup.queue.retry(lease, 5, "TimeoutError" * 50)
        assert await setup.take() == []
        assert await setup.queue.depth() == 1
        setup.clock.advance(5)
        assert ids(await setup.take()) == ["a1"]
        state, tries, error = await setup.state("a1")
        assert (state, tries, (error or "")[:12]) == ("leased", 2, "TimeoutError")

    async def test_release_is_as_if_never_taken(self, setup: Setup) -> None:
        """What is given back is there at once and has not been tried."""
        await setup.put("a1")
        await setup.queue.release(await setup.take())
        (lease,) = await setup.take()
        assert lease.tries == 1

    async def test_depth_counts_what_waits(self, setup: Setup) -> None:
        """Leased and ended items are not waiting."""
        await setup.put("a1", "b1", "c1")
        first, _second = await setup.take(2)
        assert await setup.queue.depth() == 1
        await setup.ack(first)
        assert await setup.queue.depth() == 1
        assert (await setup.state("a1"))[0] == "done"


class MemoryQueue:
    """A queue that hands out given leases once and remembers what becomes of them."""

    name = "memory"
    waits = False

    def __init__(self, *leases: Lease) -> None:
        self.waiting = list(leases)
        self.retried: list[tuple[str, str]] = []
        self.released: list[str] = []
        self.lost: set[str] = set()
        self.largest = 0
        self.broken = 0
        self.looks = 0

    async def receive(self, limit: int) -> Sequence[Lease]:
        self.looks += 1
        if self.broken:
            self.broken -= 1
            raise StorageUnavailableError("gone")
        self.largest = max(self.largest, limit)
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def retry(self, lease: Lease, delay: float, error: str) -> None:
        self.retried.append((lease.id, error))

    async def extend(self, leases: Collection[Lease]) -> set[str]:
        return {lease.id for lease in leases} - self.lost

    async def release(self, leases: Collection[Lease]) -> None:
        self.released += [lease.id for lease in leases]

    def publish(self, transaction: Any, items: Any) -> None:
        raise NotImplementedError

    def ack(self, transaction: Any, leases: Any, *, dead: bool = False) -> set[str]:
        raise NotImplementedError

    async def depth(self) -> int:
        return len(self.waiting)

    async def run(self) -> None:
        """There is nothing to be done."""

    async def close(self) -> None:
        """There is nothing to be closed."""


class Running:
    """A worker over a memory queue, and what it did."""

    def __init__(self, queue: MemoryQueue, handle: Callable[[Lease], Any], **settings: Any) -> None:
        self.dead: list[str] = []
        self.handled: list[str] = []
        self.wakeup = Wakeup()
        self.changed = asyncio.Event()

        async def handling(lease: Lease) -> None:
            await handle(lease)
            self.handled.append(lease.id)
            self.changed.set()

        async def give_up(lease: Lease) -> None:
            self.dead.append(lease.id)
            self.changed.set()

        values = {"batch": 10, "visibility": 60.0, "lease": LEASE, "max_tries": 3, **settings}
        self.worker = Worker(
            queue=queue,
            handle=handling,
            give_up=give_up,
            wakeup=self.wakeup,
            settings=WorkerSettings(**values),
            metrics=Metrics(),
        )
        self.task = asyncio.create_task(self.worker.run())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - conditions of many kinds are awaited
                await asyncio.sleep(0.001)

    async def stop(self, grace: float = 5) -> None:
        await self.worker.stop(grace)
        await self.task


def lease(name: str, clock: Any, tries: int = 1) -> Lease:
    return Lease(name, tries, clock())


async def nothing(_lease: Lease) -> None:
    pass


class TestWorker:
    async def test_it_works_what_there_is(self, clock: Any) -> None:
        """Everything in the queue is handled, in parallel."""
        running = Running(MemoryQueue(*(lease(f"t{n}", clock) for n in range(25))), nothing, batch=10)
        await running.until(lambda: len(running.handled) == 25)
        await running.stop()

    async def test_no_more_than_a_batch_at_once(self, clock: Any) -> None:
        """The number in work is bounded, and a place that is freed is filled."""
        now = most = 0

        async def handle(_lease: Lease) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.002)
            now -= 1

        queue = MemoryQueue(*(lease(f"t{n}", clock) for n in range(20)))
        running = Running(queue, handle, batch=4)
        await running.until(lambda: len(running.handled) == 20)
        await running.stop()
        assert most == queue.largest == 4

    async def test_one_bad_item_stops_nobody(self, clock: Any) -> None:
        """An item that fails is tried again later, and the others are done."""

        async def handle(taken: Lease) -> None:
            if taken.id == "bad":
                raise ValueError("private words of a customer")

        queue = MemoryQueue(lease("good", clock), lease("bad", clock), lease("fine", clock))
        running = Running(queue, handle)
        await running.until(lambda: len(running.handled) == 2 and bool(queue.retried))
        await running.stop()
        assert queue.retried == [("bad", "ValueError")]

    async def test_what_is_kept_of_a_failure(self, clock: Any) -> None:
        """An error of the runtime's own is kept as its reason, any other by its kind, whatever it calls a reason."""
        errors = {
            "own": ProviderError("overloaded", "private words"),
            "other": UnicodeDecodeError("utf-8", b"", 0, 1, "private words"),
        }

        async def handle(taken: Lease) -> None:
            raise errors[taken.id]

        queue = MemoryQueue(lease("own", clock), lease("other", clock))
        running = Running(queue, handle)
        await running.until(lambda: len(queue.retried) == 2)
        await running.stop()
        assert dict(queue.retried) == {"own": "overloaded", "other": "UnicodeDecodeError"}
        assert not running.dead

    async def test_the_last_failure_is_the_end(self, clock: Any) -> None:
        """At the last try a failing item is given up."""

        async def handle(_lease: Lease) -> None:
            raise ValueError

        queue = MemoryQueue(lease("bad", clock, tries=3))
        running = Running(queue, handle, max_tries=3)
        await running.until(lambda: running.dead == ["bad"])
        await running.stop()
        assert not queue.retried

    async def test_what_kills_the_process_is_buried_unseen(self, clock: Any) -> None:
        """An item that was leased too often without failing took its workers with it: it is not handled again."""
        running = Running(MemoryQueue(lease("killer", clock, tries=4)), nothing, max_tries=3)
        await running.until(lambda: running.dead == ["killer"])
        await running.stop()
        assert not running.handled

    async def test_an_outage_does_not_count_against_the_item(self, clock: Any) -> None:
        """A database that was gone at the last try does not cost the customer the answer."""

        async def handle(_lease: Lease) -> None:
            raise StorageUnavailableError("gone")

        queue = MemoryQueue(lease("t", clock, tries=3))
        running = Running(queue, handle, max_tries=3)
        await running.until(lambda: bool(queue.retried))
        await running.stop()
        assert not running.dead

    async def test_an_outage_of_the_queue_is_waited_out(self, clock: Any) -> None:
        """A queue that can't be reached is asked again."""
        queue = MemoryQueue(lease("t", clock))
        queue.broken = 3
        running = Running(queue, nothing, poll=0.001)
        await running.until(lambda: running.handled == ["t"])
        await running.stop()

    async def test_an_item_has_a_time_limit(self, clock: Any) -> None:
        """A handler that hangs is stopped after the visibility time, and its item tried again."""
        queue = MemoryQueue(lease("slow", clock))
        running = Running(queue, lambda _lease: asyncio.sleep(60), visibility=0.05)
        await running.until(lambda: queue.retried == [("slow", "TimeoutError")])
        await running.stop()

    async def test_a_lost_lease_stops_its_handler(self, clock: Any) -> None:
        """Work that is another's by now is not finished here."""
        queue = MemoryQueue(lease("lost", clock))
        queue.lost = {"lost"}
        ended = asyncio.Event()

        async def handle(_lease: Lease) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        running = Running(queue, handle, lease=0.03)
        await asyncio.wait_for(ended.wait(), 5)
        await running.stop()
        assert not running.handled
        assert not queue.retried

    async def test_who_has_just_ended_a_lease_is_not_stopped(self, clock: Any) -> None:
        """A handler whose lease it ended itself, while the leases were being extended, comes to its own end."""
        asked = asyncio.Event()

        class Extending(MemoryQueue):
            async def extend(self, leases: Collection[Lease]) -> set[str]:
                asked.set()
                return await super().extend(leases)

        async def handle(_lease: Lease) -> None:
            await asked.wait()
            for _ in range(20):  # as many turns of the loop as there are between a commit and its caller
                await asyncio.sleep(0)

        queue = Extending(lease("done", clock))
        queue.lost = {"done"}
        running = Running(queue, handle, lease=0.03)
        await running.until(lambda: running.handled == ["done"])
        await running.stop()

    async def test_what_waited_behind_an_item_follows_at_once(self, clock: Any) -> None:
        """An item that was passed over because an earlier one was in work is taken when that ends, without polling."""
        release = asyncio.Event()
        queue = MemoryQueue(lease("a1", clock))

        async def handle(taken: Lease) -> None:
            if taken.id == "a1":
                await release.wait()
                queue.waiting.append(lease("a2", clock))

        running = Running(queue, handle, poll=3600)
        await running.until(lambda: not queue.waiting)
        running.wakeup.notify()  # a2 arrives: it is looked for, and passed over
        await running.until(lambda: queue.looks == 2)
        release.set()
        await running.until(lambda: running.handled == ["a1", "a2"])
        await running.stop()

    async def test_stopping_lets_work_end(self, clock: Any) -> None:
        """What runs when the worker is told to stop is finished, and nothing new is taken."""
        release = asyncio.Event()
        started = asyncio.Event()

        async def handle(_lease: Lease) -> None:
            started.set()
            await release.wait()

        queue = MemoryQueue(lease("running", clock))
        running = Running(queue, handle)
        await started.wait()
        stopping = asyncio.create_task(running.stop())
        await asyncio.sleep(0)
        queue.waiting.append(lease("late", clock))
        running.wakeup.notify()
        release.set()
        await stopping
        assert running.handled == ["running"]
        assert ids(queue.waiting) == ["late"]

    async def test_stopping_gives_the_rest_back(self, clock: Any) -> None:
        """What does not end within the grace is released for another worker at once."""
        started = asyncio.Event()

        async def handle(_lease: Lease) -> None:
            started.set()
            await asyncio.sleep(60)

        queue = MemoryQueue(lease("long", clock))
        running = Running(queue, handle)
        await started.wait()
        await running.stop(grace=0.01)
        assert queue.released == ["long"]

    async def test_it_says_whether_it_has_room(self, clock: Any) -> None:
        """While it is full, or not running, messages must be announced to others."""
        release = asyncio.Event()
        queue = MemoryQueue(lease("a", clock), lease("b", clock))
        running = Running(queue, lambda _lease: release.wait(), batch=2)
        assert not running.wakeup.has_room
        await running.until(lambda: not queue.waiting)
        running.wakeup.notify()
        await running.until(lambda: not running.wakeup.has_room)
        release.set()
        await running.until(lambda: running.wakeup.has_room)
        await running.stop()
        assert not running.wakeup.has_room

    @given(st.integers(1, 1000), st.floats(0, 1))
    def test_pauses_grow_and_are_bounded(self, tries: int, chance: float) -> None:
        """The pause doubles with each failure, never exceeds the longest, and is never nought."""
        pauses = Pauses()
        assert 0 < pauses.after(tries, chance) <= LONGEST_PAUSE
        assert pauses.after(tries, chance) <= pauses.after(tries + 1, chance)
