"""The work queue: every key once, never twice at the same time, and failures come back later and later."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supportfleet_operator.reconcile.queue import (
    FIRST_DELAY,
    LONGEST_DELAY,
    LONGEST_URGENT_DELAY,
    Schedule,
    WorkQueue,
    backoff,
)

KEYS = st.sampled_from("abcd")


class TestSchedule:
    def test_a_key_that_waits_is_one_key(self) -> None:
        """Ten events of one agent are one reconcile."""
        schedule: Schedule[str] = Schedule()
        for _ in range(10):
            schedule.add("a")
        assert schedule.take(0) == "a"
        assert schedule.take(0) is None

    def test_news_during_work_means_once_more_afterwards(self) -> None:
        """What happens while a key is worked on is looked at when that is done, not meanwhile."""
        schedule: Schedule[str] = Schedule()
        schedule.add("a")
        assert schedule.take(0) == "a"
        schedule.add("a")
        schedule.add("a")
        assert schedule.take(0) is None
        schedule.done("a")
        assert schedule.take(0) == "a"
        schedule.done("a")
        assert schedule.take(0) is None

    def test_first_come_first_served(self) -> None:
        """Keys are worked on in the order in which they came."""
        schedule: Schedule[str] = Schedule()
        for key in "cab":
            schedule.add(key)
        assert [schedule.take(0) for _ in range(3)] == ["c", "a", "b"]

    def test_an_appointment_is_kept_and_the_earliest_holds(self) -> None:
        """A key comes at its time and not before."""
        schedule: Schedule[str] = Schedule()
        schedule.add_at("a", 10)
        schedule.add_at("a", 5)
        schedule.add_at("a", 7)
        assert schedule.next_at() == 5
        assert schedule.take(4.9) is None
        assert schedule.take(5) == "a"
        schedule.done("a")
        assert schedule.next_at() is None

    def test_work_in_between_serves_the_appointment(self) -> None:
        """A look for another reason makes the appointed one unnecessary: the reconcile makes a new one if need be."""
        schedule: Schedule[str] = Schedule()
        schedule.add_at("a", 10)
        schedule.add("a")
        assert schedule.take(0) == "a"
        schedule.done("a")
        assert schedule.take(20) is None

    def test_failures_wait_longer_each_time_and_success_forgives(self) -> None:
        """Backoff is per key, doubles, and starts anew after a success."""
        schedule: Schedule[str] = Schedule()
        delays = []
        now = 0.0
        schedule.add("a")
        for _ in range(4):
            assert schedule.take(now) == "a"
            delay = schedule.failed("a", now, jitter=1.0)
            delays.append(delay)
            now += delay
        assert delays == [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4, FIRST_DELAY * 8]
        assert schedule.take(now) == "a"
        schedule.done("a")
        assert schedule.failures("a") == 0

    def test_news_do_not_wait_for_the_backoff(self) -> None:
        """An edit made while a reconcile was failing is looked at at once."""
        schedule: Schedule[str] = Schedule()
        schedule.add("a")
        schedule.take(0)
        schedule.add("a")
        schedule.failed("a", 0, jitter=1.0)
        assert schedule.take(0) == "a"

    def test_the_server_may_ask_for_more(self) -> None:
        """Retry-After is the least to wait."""
        schedule: Schedule[str] = Schedule()
        schedule.add("a")
        schedule.take(0)
        assert schedule.failed("a", 0, jitter=0.0, at_least=30) == 30
        assert schedule.take(29) is None
        assert schedule.take(30) == "a"

    def test_a_forgotten_key_does_not_come_back(self) -> None:
        """An agent that is gone has no appointment left."""
        schedule: Schedule[str] = Schedule()
        schedule.add_at("a", 10)
        schedule.forget("a")
        assert schedule.take(100) is None


class TestUrgentKeys:
    """Keys of agents whose customers wait."""

    def schedule(self) -> Schedule[str]:
        return Schedule(lambda key: key.startswith("urgent"))

    def test_they_overtake(self) -> None:
        """However many wait, an urgent key is the next, whether it was added or its time has come."""
        schedule = self.schedule()
        for number in range(100):
            schedule.add(f"bulk {number}")
        schedule.add("urgent 1")
        schedule.add_at("urgent 2", 5)
        assert schedule.take(0) == "urgent 1"
        assert schedule.take(5) == "urgent 2"
        assert schedule.take(5) == "bulk 0"

    def test_a_reserved_worker_takes_nothing_else(self) -> None:
        """It waits for what must not wait."""
        schedule = self.schedule()
        schedule.add("bulk")
        assert schedule.take(0, urgent_only=True) is None
        assert not schedule.has_urgent
        schedule.add("urgent")
        assert schedule.take(0, urgent_only=True) == "urgent"

    def test_a_key_may_become_urgent_while_it_waits(self) -> None:
        """It moves ahead, and is still one key."""
        urgent: set[str] = set()
        schedule: Schedule[str] = Schedule(urgent.__contains__)
        for key in "abc":
            schedule.add(key)
        urgent.add("c")
        schedule.add("c")
        assert len(schedule) == 3
        assert [schedule.take(0) for _ in range(4)] == ["c", "a", "b", None]

    def test_they_come_back_soon(self) -> None:
        """A rollback that failed a hundred times, or that was asked for patience, is tried again within seconds."""
        schedule = self.schedule()
        for _ in range(100):
            schedule.add("urgent")
            schedule.take(0)
            assert schedule.failed("urgent", 0, jitter=1.0, at_least=60) <= LONGEST_URGENT_DELAY

    async def test_no_wake_is_lost_on_a_reserved_worker(self) -> None:
        """A key for anybody wakes one of the others; an urgent one wakes whoever is free."""
        queue: WorkQueue[str] = WorkQueue(is_urgent=lambda key: key == "urgent")
        reserved = asyncio.create_task(queue.get(urgent_only=True))
        ordinary = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add("bulk")
        assert await asyncio.wait_for(ordinary, 1) == "bulk"
        assert not reserved.done()
        queue.add("urgent")
        assert await asyncio.wait_for(reserved, 1) == "urgent"


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_is_bounded(failures: int, jitter: float) -> None:
    """However often something failed, the wait is positive and bounded."""
    assert 0 < backoff(failures, jitter) <= LONGEST_DELAY


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of events, workers, failures and time: nothing is lost, doubled or early."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.now = 0.0
        self.working: set[str] = set()
        self.owed: Counter[str] = Counter()
        """Keys for which something happened that no work has begun after."""
        self.due: dict[str, float] = {}

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.schedule.add(key)
        self.owed[key] = 1

    @rule(key=KEYS, delay=st.floats(0, 50))
    def appoint(self, key: str, delay: float) -> None:
        self.schedule.add_at(key, self.now + delay)
        self.due[key] = min(self.due.get(key, float("inf")), self.now + delay)

    @rule()
    def take(self) -> None:
        key = self.schedule.take(self.now)
        ready = {one for one in self.owed if self.owed[one]} | {one for one, at in self.due.items() if at <= self.now}
        if key is None:
            assert ready <= self.working
        else:
            assert key not in self.working
            assert key in ready
            self.working.add(key)
            self.owed[key] = 0
            self.due.pop(key, None)
        for one in ready - {key}:  # an appointment that has come is work that waits
            self.owed[one] = 1
            if self.due.get(one, float("inf")) <= self.now:
                del self.due[one]

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.schedule.done(key)
        self.working.discard(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data(), jitter=st.floats(0, 1))
    def fail(self, data: st.DataObject, jitter: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        delay = self.schedule.failed(key, self.now, jitter=jitter)
        assert delay > 0
        self.working.discard(key)
        self.due[key] = min(self.due.get(key, float("inf")), self.now + delay)

    @rule(seconds=st.floats(0.01, 30))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def workers_are_as_known(self) -> None:
        assert self.schedule.working == self.working

    @invariant()
    def the_next_appointment_is_known(self) -> None:
        if self.due:
            at = self.schedule.next_at()
            assert at is None or at >= min(self.due.values()) - 1e-9

    def teardown(self) -> None:
        """In the end everything that was owed is worked on."""
        for key in list(self.working):
            self.schedule.done(key)
        expected = {key for key, owed in self.owed.items() if owed} | set(self.due)
        seen = set()
        while (key := self.schedule.take(float("inf"))) is not None:
            assert key not in seen
            seen.add(key)
        assert seen == expected


ScheduleMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduleMachine = ScheduleMachine.TestCase


class TestWorkQueue:
    async def test_a_waiting_worker_is_woken(self) -> None:
        """A key that comes in is worked on at once, whoever was waiting."""
        queue: WorkQueue[str] = WorkQueue()
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        queue.add("a")
        assert await asyncio.wait_for(worker, 10) == "a"

    async def test_many_workers_share_many_keys(self, until: Any) -> None:
        """Every key is worked on once, by no more workers than there are, none at the same time as itself."""
        queue: WorkQueue[int] = WorkQueue()
        worked: Counter[int] = Counter()
        busy: set[int] = set()
        most = 0

        async def work() -> None:
            nonlocal most
            while True:
                key = await queue.get()
                assert key not in busy
                busy.add(key)
                most = max(most, len(busy))
                await asyncio.sleep(0.001)
                busy.discard(key)
                worked[key] += 1
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(4)]
        for key in range(100):
            queue.add(key)
            queue.add(key)
        await until(lambda: sum(worked.values()) >= 100)
        assert set(worked.values()) == {1}
        assert most == 4
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def test_an_appointment_wakes_a_worker(self) -> None:
        """Nothing has to happen for a key that was put off."""
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("late", 0.05)
        queue.add_after("early", 0.01)
        assert [await asyncio.wait_for(queue.get(), 10) for _ in range(2)] == ["early", "late"]

    async def test_an_earlier_appointment_is_noticed_while_waiting(self) -> None:
        """A worker that sleeps until the next appointment notices one that comes before it."""
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("late", 60)
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        queue.add_after("early", 0.01)
        assert await asyncio.wait_for(worker, 10) == "early"

    async def test_a_cancelled_worker_loses_nothing(self) -> None:
        """A key stays for the next worker when the one that waited is cancelled."""
        queue: WorkQueue[str] = WorkQueue()
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(0.01)
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        queue.add("a")
        assert await asyncio.wait_for(queue.get(), 10) == "a"

    async def test_failing_and_forgetting(self) -> None:
        """A failed key comes back by itself, a forgotten one does not."""
        queue: WorkQueue[str] = WorkQueue(jitter=lambda: 0.0)
        queue.add("a")
        await queue.get()
        assert queue.failed("a") == FIRST_DELAY / 2
        assert await asyncio.wait_for(queue.get(), 10) == "a"
        queue.failed("a", at_least=0.05)
        queue.forget("a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.2)
