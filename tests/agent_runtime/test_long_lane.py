from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.classifier import KeywordClassifier
from supportfleet_runtime.agent.ladder import Ladder, Rung
from supportfleet_runtime.agent.orders import sample_order_book
from supportfleet_runtime.agent.providers.scripted import ScriptedProvider
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.history import Histories
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.long_answering import LongAnswering
from supportfleet_runtime.conversations.records import Deferred, Incoming
from supportfleet_runtime.conversations.turns import Turns
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.deadletters import DeadLetters
from supportfleet_runtime.queue.long_lane import LongLane
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.sql import ADOPT, SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.schema import conversations, long_tasks, tasks

SCOPE = "shop/helper"
ALL = "show me all my orders"


class Shop:
    """The stations of one process: both lanes, with a long work that tests may hold up."""

    def __init__(
        self, database: Database, clock: Any, *, queue: str = SCOPE, long: frozenset[str] | None = None
    ) -> None:
        settings = AgentSettings(long_intents=long) if long else AgentSettings()
        self.clock = clock
        self.views = Views(database, SCOPE)
        self.waiters = Waiters(self.views.replies)
        self.queue = SqlQueue(database, queue, lease=30, now=clock)
        self.lane = LongLane(database, queue, scope=SCOPE, lease=30, now=clock)
        self.intake = Intake(database, self.queue, SCOPE, Wakeup())
        self.bell = Wakeup()
        agent = Agent(lambda: settings, KeywordClassifier, Ladder([Rung(0, ScriptedProvider())]), Metrics(), clock)
        turns = Turns(database, self.queue, self.waiters, scope=SCOPE, window=lambda: 3, now=clock, long_lane=self.lane)
        self.answering = Answering(agent, turns, Wakeup(), Metrics(), self.bell)
        late = Turns(database, self.lane, self.waiters, scope=SCOPE, window=lambda: 3, now=clock, late=True)
        histories = Histories(database, SCOPE, sample_order_book, now=clock)
        works = {"detailed_history": histories.detailed_history}
        self.long = LongAnswering(agent, late, self.lane, works=works, ended=Wakeup(), metrics=Metrics())

    async def say(
        self, text: str, conversation: str | None = None, customer: str = "cust-1001", trace: str | None = None
    ) -> Incoming:
        """Accept a message, and have the short lane do with it what it does."""
        now = self.clock()
        conversation_id = conversation or new_id("conv", now)
        incoming = Incoming(
            new_id("task", now), new_id("msg", now), customer, conversation_id, conversation is None, text, now, trace
        )
        await self.intake.accept(incoming)
        (lease,) = await self.queue.receive(1)
        await self.answering.handle(lease)
        return incoming

    async def take(self) -> Lease:
        (lease,) = await self.lane.receive(1)
        return lease


@pytest.fixture
def shop(database: Database, clock: Any) -> Shop:
    return Shop(database, clock)


class TestDeferring:
    async def test_a_long_task_leaves_the_queue(self, shop: Shop) -> None:
        """What takes long waits in the long lane, whose worker is told; the task stays queued, without a reply."""
        asked = await shop.say(ALL)
        assert (await shop.queue.depth(), await shop.lane.waiting()) == (0, 1)
        task = await shop.views.task(asked.task_id, None)
        assert (task.state, task.reply, task.finished_at) == ("queued", None, None)
        assert await shop.bell.wait(0)

    async def test_whoever_waits_is_told(self, shop: Shop) -> None:
        """A request that waits, here or in another process, learns at once that the task takes long."""
        asked = shop.waiters.waiting("task_of_nobody")
        async with asked:
            incoming = await shop.say(ALL)
        assert await shop.views.replies([incoming.task_id]) == {incoming.task_id: Deferred("other")}

    async def test_later_turns_do_not_wait(self, shop: Shop) -> None:
        """The conversation goes on while the long task is open, and its reply still lands in its own turn."""
        asked = await shop.say(ALL)
        held = await shop.take()
        quick = await shop.say("hello", asked.conversation_id)
        assert (await shop.views.task(quick.task_id, None)).state == "done"
        await shop.long.handle(held)
        shown = await shop.views.conversation(asked.conversation_id, None, 10)
        assert [(one.turn, one.role) for one in shown.messages] == [
            (turn, role) for turn in (1, 2) for role in ("customer", "agent")
        ]
        assert "A-1001" in shown.messages[1].text

    async def test_which_intents_is_configured(self, database: Database, clock: Any) -> None:
        """Any intent may be made a long one; those that are not any more are answered at once."""
        shop = Shop(database, clock, long=frozenset({"greeting"}))
        assert (await shop.views.task((await shop.say("hello")).task_id, None)).state == "queued"
        assert (await shop.views.task((await shop.say(ALL)).task_id, None)).state == "done"
        await shop.long.handle(await shop.take())


class TestWorking:
    async def test_the_result_is_the_whole_history(self, shop: Shop, database: Database) -> None:
        """The task's result holds every order and every conversation of the customer, and of nobody else."""
        earlier = await shop.say("hello")
        await shop.say("hello", customer="eve")
        asked = await shop.say(ALL)
        await shop.long.handle(await shop.take())
        task = await shop.views.task(asked.task_id, None)
        assert task.state == "done"
        states = await database.read(lambda connection: connection.execute(select(tasks.c.state)).scalars().all())
        assert set(states) == {"done"}, "the queue's record of the task says so too"
        assert task.reply is not None
        assert task.long is not None
        assert task.long.progress == 100
        result = task.long.result
        assert {order["number"] for order in result["orders"]} == {"A-1001", "A-1002", "A-1003", "A-1004"}
        assert {one["conversation_id"] for one in result["conversations"]} == {
            earlier.conversation_id,
            asked.conversation_id,
        }
        assert result["is_complete"]

    async def test_progress_is_shown_and_the_result_only_at_the_end(self, shop: Shop) -> None:
        """A running task says how far it is; a result that is kept is shown once the task is done."""
        asked = await shop.say(ALL)
        lease = await shop.take()
        await shop.lane.report(lease, 40)
        task = await shop.views.task(asked.task_id, None)
        assert (task.state, task.long and task.long.progress) == ("running", 40)
        await shop.lane.keep(lease, '{"orders": []}')
        task = await shop.views.task(asked.task_id, None)
        assert task.long is not None
        assert task.long.result is None

    async def test_a_lost_lease_changes_nothing(self, shop: Shop) -> None:
        """A worker that was silent too long neither reports nor ends what another one holds."""
        asked = await shop.say(ALL)
        slow = await shop.take()
        shop.clock.advance(31)
        quick = await shop.take()
        await shop.lane.report(slow, 99)
        await shop.long.handle(slow)
        task = await shop.views.task(asked.task_id, None)
        assert (task.state, task.long and task.long.progress) == ("running", 0)
        await shop.long.handle(quick)
        assert (await shop.views.task(asked.task_id, None)).state == "done"

    async def test_a_question_is_remembered(self, database: Database, clock: Any) -> None:
        """An answer to the agent's question is understood in the long lane as it was when it was taken."""
        shop = Shop(database, clock)
        asked = await shop.say("where is my order?")
        long = Shop(database, clock, long=frozenset({"order_status"}))
        told = await long.say("A-1001", asked.conversation_id)
        assert (await long.views.task(told.task_id, None)).state == "queued"
        assert await long.views.pending(asked.conversation_id) is None
        await long.long.handle(await long.take())
        reply = (await long.views.task(told.task_id, None)).reply
        assert reply is not None
        assert "DHL" in reply.text

    async def test_a_late_answer_leaves_the_open_question_alone(self, shop: Shop) -> None:
        """What was asked since then stays open; a late answer asks only where the conversation has not gone on."""
        asked = await shop.say(ALL)
        await shop.say("where is my order?", asked.conversation_id)
        await shop.long.handle(await shop.take())
        assert await shop.views.pending(asked.conversation_id) == Pending("order_status", 1)

    async def test_what_cannot_be_done_fails(self, shop: Shop, database: Database) -> None:
        """A long task that is given up is a dead letter with the generic reply; replayed, it is done after all."""
        asked = await shop.say(ALL)
        await shop.long.give_up(await shop.take())
        task = await shop.views.task(asked.task_id, None)
        assert (task.state, task.reply and task.reply.source) == ("failed", "fallback")
        assert await DeadLetters(database, SCOPE, now=shop.clock).replay([asked.task_id]) == {asked.task_id}
        (lease,) = await shop.queue.receive(1)
        await shop.answering.handle(lease)
        await shop.long.handle(await shop.take())
        task = await shop.views.task(asked.task_id, None)
        assert (task.state, task.reply and task.reply.source) == ("done", "rules")


class TestLeasing:
    async def test_another_revision_comes_second(self, database: Database, clock: Any) -> None:
        """A revision's long tasks are its own workers'; once nobody took them for a while, they are the others'."""
        canary, stable = Shop(database, clock, queue=f"{SCOPE}/canary"), Shop(database, clock, queue=f"{SCOPE}/stable")
        await canary.say(ALL)
        assert not await stable.lane.receive(1)
        clock.advance(ADOPT.total_seconds() + 1)
        await stable.long.handle(await stable.take())
        assert not await canary.lane.receive(1)

    async def test_another_agent_never_does(self, shop: Shop, database: Database) -> None:
        """Agents that share a database don't work each other's long tasks."""
        await shop.say(ALL)
        await database.write(
            lambda c: c.execute(update(long_tasks).values(visible_at=shop.clock() - timedelta(days=1)))
        )
        other = LongLane(database, "shop/other", scope="shop/other", lease=30, now=shop.clock)
        assert not await other.receive(1)


class TestTraces:
    async def test_a_long_task_goes_on_with_its_own_trace(self, database: Database, clock: Any) -> None:
        """Of several tasks each is worked in the trace of its own message."""
        shop = Shop(database, clock)
        said = [await shop.say(ALL, trace=f"00-{number:032x}-{number:016x}-01") for number in (1, 2, 3)]
        said.append(await shop.say(ALL))
        leases = await shop.lane.receive(10)
        assert {lease.id: lease.trace for lease in leases} == {one.task_id: one.trace for one in said}


class TestHistories:
    async def test_a_long_one_is_read_in_pages(self, shop: Shop, database: Database, clock: Any) -> None:
        """Pages join to the whole, each conversation once, the latest first; progress grows on the way."""
        for _ in range(7):
            await shop.say("hello")
            clock.advance(1)
        told: list[int] = []

        async def report(progress: int) -> None:
            told.append(progress)

        histories = Histories(database, SCOPE, sample_order_book, now=clock, page=3)
        result = await histories.detailed_history("cust-1001", report)
        times = [one["created_at"] for one in result["conversations"]]
        assert times == sorted(times, reverse=True)
        assert len({one["conversation_id"] for one in result["conversations"]}) == 7
        assert all(
            [said["role"] for said in one["messages"]] == ["customer", "agent"] for one in result["conversations"]
        )
        assert told == sorted(told)
        assert 0 < told[0] <= told[-1] < 100

    async def test_it_ends_somewhere(self, shop: Shop, database: Database) -> None:
        """A history beyond the bound is cut, and says so."""
        for _ in range(4):
            await shop.say("hello")

        async def report(_progress: int) -> None:
            return

        histories = Histories(database, SCOPE, sample_order_book, now=shop.clock, page=1, most=4)
        result = await histories.detailed_history("cust-1001", report)
        assert (len(result["conversations"]), result["is_complete"]) == (2, False)


class TestThroughHttp:
    async def test_a_long_message_is_a_task_at_once(self, start_agent: Callable[..., Any]) -> None:
        """POST answers 202 without waiting for the work; the task then has reply, progress and result."""
        agent = await start_agent()
        body = {"customer_id": "cust-1001", "text": ALL}
        async with agent.client.post("/v1/messages", json=body) as got:
            assert got.status == 202
            location = got.headers["Location"]
        async with asyncio.timeout(20):
            while (task := await (await agent.client.get(location)).json())["status"] != "done":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert task["progress"] == 100
        assert len(task["result"]["orders"]) == 4
        assert "A-1001" in task["reply"]
        assert await agent.metric('agent_request_total{intent="detailed_history",status="202"}') == 1

    async def test_short_ones_do_not_wait_for_long_ones(self, start_agent: Callable[..., Any]) -> None:
        """With every place of the long lane taken by work that hangs, messages are answered as ever."""
        agent = await start_agent(LONG_TASKS="1")
        started, release = asyncio.Event(), asyncio.Event()

        async def hang(_lease: Lease) -> None:
            started.set()
            await release.wait()

        agent.parts.long_worker._handle = hang
        for _ in range(3):
            async with agent.client.post("/v1/messages", json={"customer_id": "cust-1001", "text": ALL}) as got:
                assert got.status == 202
        await started.wait()
        assert (await agent.say("Where is my order A-1001?"))["source"] == "rules"
        release.set()


async def test_a_customers_rows_go_with_the_conversation(shop: Shop, database: Database) -> None:
    """Deleting a conversation deletes its long tasks and their results."""
    asked = await shop.say(ALL)
    await shop.long.handle(await shop.take())
    gone = conversations.delete().where(conversations.c.id == asked.conversation_id)
    await database.write(lambda connection: connection.execute(gone))
    assert await database.read(lambda connection: connection.execute(select(long_tasks)).all()) == []
