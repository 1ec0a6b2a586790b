from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.classifier import KeywordClassifier
from supportfleet_runtime.agent.ladder import Ladder, Rung
from supportfleet_runtime.agent.providers.scripted import ScriptedProvider
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.turn import Answer, Exchange, Source
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.records import Incoming, Reply
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.errors import NotFoundError, StorageError, StorageUnavailableError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id

REPLY = Reply("Hello", "other", 0.5, "model", "m", tools_enabled=False, fallback_level=0, escalated=False)


class Desk:
    """A conversation's stations: taking in, working, reading; as the parts of one process share them."""

    def __init__(self, database: Database, clock: Any, scope: str = "shop/helper") -> None:
        self.clock = clock
        self.wakeup = Wakeup()
        self.queue = SqlQueue(database, scope, lease=30, now=clock)
        self.views = Views(database, scope)
        self.waiters = Waiters(self.views.replies)
        self.turns = Turns(database, self.queue, self.waiters, scope=scope, window=lambda: 3, now=clock)
        self.intake = Intake(database, self.queue, scope, self.wakeup)

    def message(self, text: str, conversation: str | None = None, customer: str = "ada") -> Incoming:
        now = self.clock()
        conversation_id = conversation or new_id("conv", now)
        return Incoming(
            new_id("task", now), new_id("msg", now), customer, conversation_id, conversation is None, text, now
        )

    async def say(self, text: str, conversation: str | None = None, customer: str = "ada") -> Incoming:
        incoming = self.message(text, conversation, customer)
        await self.intake.accept(incoming)
        return incoming

    async def take(self) -> Lease:
        (lease,) = await self.queue.receive(1)
        return lease

    async def reply(self, lease: Lease, text: str = "a reply", *, dead: bool = False, **facts: Any) -> bool:
        turn = await self.turns.load(lease.id)
        answer = Answer(text, "refund", 0.9, Source.RULES, **facts)
        return await self.turns.store(Answered(lease, turn, answer, dead=dead))


@pytest.fixture
def desk(database: Database, clock: Any) -> Desk:
    return Desk(database, clock)


class TestIntake:
    async def test_an_accepted_message_is_there_with_its_task(self, desk: Desk) -> None:
        """Message and task are stored together, and the worker is woken."""
        incoming = await desk.say("hello")
        task = await desk.views.task(incoming.task_id, "ada")
        assert (task.state, task.message_id, task.reply) == ("queued", incoming.message_id, None)
        assert await desk.queue.depth() == 1
        assert await desk.wakeup.wait(0)

    async def test_turns_are_numbered(self, desk: Desk) -> None:
        """Each message of a conversation is the next turn, also where many come at once."""
        first = await desk.say("one")
        await asyncio.gather(*(desk.say(f"more {n}", first.conversation_id) for n in range(5)))
        shown = await desk.views.conversation(first.conversation_id, "ada", 100)
        assert [message.turn for message in shown.messages] == [1, 2, 3, 4, 5, 6]

    async def test_a_conversation_is_its_customers(self, desk: Desk) -> None:
        """Nobody continues another's conversation, nor one that doesn't exist; both look alike."""
        first = await desk.say("mine")
        with pytest.raises(NotFoundError) as others:
            await desk.say("let me in", first.conversation_id, customer="eve")
        with pytest.raises(NotFoundError) as nobodys:
            await desk.say("let me in", "conv_" + "0" * 26, customer="eve")
        assert str(others.value) == str(nobodys.value)
        assert await desk.queue.depth() == 1

    async def test_agents_are_apart(self, desk: Desk, database: Database, clock: Any) -> None:
        """An agent that shares the database neither continues nor reads the conversation."""
        first = await desk.say("mine")
        other = Desk(database, clock, scope="shop/other")
        with pytest.raises(NotFoundError):
            await other.say("hello", first.conversation_id)
        with pytest.raises(NotFoundError):
            await other.views.conversation(first.conversation_id, None, 10)
        with pytest.raises(NotFoundError):
            await other.views.task(first.task_id, None)

    async def test_one_refusal_among_many(self, desk: Desk) -> None:
        """A message for a strange conversation fails alone; those that came with it are accepted."""
        outcomes = await asyncio.gather(
            *(desk.say(f"hello {n}") for n in range(4)),
            desk.say("hello", "conv_unknown"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Incoming] * 4 + [NotFoundError]
        assert await desk.queue.depth() == 4

    async def test_one_that_cannot_be_stored(self, desk: Desk) -> None:
        """A message that the database refuses fails alone, too."""
        taken = await desk.say("first")
        double = desk.message("again")
        double = Incoming(**{**vars(double), "task_id": taken.task_id})
        outcomes = await asyncio.gather(
            desk.say("fine"), desk.intake.accept(double), desk.say("also fine"), return_exceptions=True
        )
        assert isinstance(outcomes[1], StorageError)
        assert await desk.queue.depth() == 3


class TestTurns:
    async def test_a_turn_has_its_history(self, desk: Desk) -> None:
        """The agent is shown what was said before, replies next to their messages, within the window."""
        first = await desk.say("one")
        await desk.reply(await desk.take(), "1")
        for number in ("two", "three", "four", "five"):
            await desk.say(number, first.conversation_id)
            await desk.reply(await desk.take(), number.upper())
        await desk.say("six", first.conversation_id)
        turn = await desk.turns.load((await desk.take()).id)
        assert (turn.text, turn.number, turn.customer_id) == ("six", 6, "ada")
        assert turn.history == (Exchange("three", "THREE"), Exchange("four", "FOUR"), Exchange("five", "FIVE"))

    async def test_what_came_later_is_not_shown(self, desk: Desk) -> None:
        """A turn knows that there is more, but not what."""
        first = await desk.say("one")
        await desk.say("two", first.conversation_id)
        turn = await desk.turns.load((await desk.take()).id)
        assert (turn.text, turn.history, turn.has_later) == ("one", (), True)

    async def test_the_open_question_is_kept(self, desk: Desk) -> None:
        """What the agent waits for is there at the next turn, and gone once it is answered."""
        first = await desk.say("where is it")
        await desk.reply(await desk.take(), pending=Pending("order_status", 2))
        await desk.say("A-1001", first.conversation_id)
        lease = await desk.take()
        assert (await desk.turns.load(lease.id)).pending == Pending("order_status", 2)
        await desk.reply(lease)
        await desk.say("thanks", first.conversation_id)
        assert (await desk.turns.load((await desk.take()).id)).pending is None

    async def test_an_escalation_stays(self, desk: Desk) -> None:
        """A conversation that was handed to a person remains so."""
        first = await desk.say("human!")
        await desk.reply(await desk.take(), escalate=True)
        await desk.say("still there?", first.conversation_id)
        lease = await desk.take()
        assert (await desk.turns.load(lease.id)).escalated
        await desk.reply(lease)
        assert (await desk.views.conversation(first.conversation_id, None, 10)).escalated

    async def test_a_reply_is_stored_once(self, desk: Desk) -> None:
        """A worker that lost its lease stores nothing, before or after the other one did."""
        incoming = await desk.say("hello")
        slow = await desk.take()
        desk.clock.advance(31)
        quick = await desk.take()
        assert not await desk.reply(slow, "from the slow one")
        assert await desk.reply(quick, "from the quick one")
        assert not await desk.reply(slow, "from the slow one again")
        shown = await desk.views.conversation(incoming.conversation_id, "ada", 10)
        assert [message.text for message in shown.messages] == ["hello", "from the quick one"]

    async def test_answers_that_come_together(self, desk: Desk) -> None:
        """Answers of many conversations share a transaction, and each says whether its lease was held."""
        for number in range(5):
            await desk.say(f"hello {number}")
        leases = list(await desk.queue.receive(10))
        stale = Lease(leases[0].id, 99, leases[0].leased_at)
        outcomes = await asyncio.gather(*(desk.reply(lease) for lease in [stale, *leases[1:]]))
        assert outcomes == [False, True, True, True, True]

    async def test_a_task_that_is_gone(self, desk: Desk) -> None:
        """A task that doesn't exist is not found, and doesn't spoil the batch."""
        incoming = await desk.say("hello")
        got = await asyncio.gather(
            desk.turns.load("task_gone"), desk.turns.load(incoming.task_id), return_exceptions=True
        )
        assert isinstance(got[0], NotFoundError)
        assert got[1].text == "hello"  # type: ignore[union-attr]


class TestAnswering:
    async def test_the_next_turn_follows_at_once(self, desk: Desk) -> None:
        """Who answered a turn wakes the worker for the next one of the conversation, and only where there is one."""
        agent = Agent(AgentSettings, KeywordClassifier, Ladder([Rung(0, ScriptedProvider())]), Metrics(), desk.clock)
        answering = Answering(agent, desk.turns, desk.wakeup, Metrics())
        first = await desk.say("hello")
        await desk.say("where is my order?", first.conversation_id)
        await desk.wakeup.wait(0)
        await answering.handle(await desk.take())
        assert await desk.wakeup.wait(0)
        await answering.handle(await desk.take())
        assert not await desk.wakeup.wait(0)
        shown = await desk.views.conversation(first.conversation_id, "ada", 10)
        assert [message.role for message in shown.messages] == ["customer", "agent"] * 2


class TestViews:
    async def test_a_task_through_its_life(self, desk: Desk) -> None:
        """Queued, running, done with the reply, or failed with the generic one."""
        incoming = await desk.say("hello")
        lease = await desk.take()
        assert (await desk.views.task(incoming.task_id, None)).state == "running"
        await desk.reply(lease, "here you are")
        done = await desk.views.task(incoming.task_id, None)
        assert (done.state, done.reply.text if done.reply else None) == ("done", "here you are")
        assert done.finished_at == desk.clock()
        other = await desk.say("hello")
        await desk.reply(await desk.take(), "sorry", dead=True)
        assert (await desk.views.task(other.task_id, None)).state == "failed"

    async def test_only_its_customer_sees_a_task(self, desk: Desk) -> None:
        """Asked for as another customer, a task is not there."""
        incoming = await desk.say("hello")
        with pytest.raises(NotFoundError):
            await desk.views.task(incoming.task_id, "eve")
        with pytest.raises(NotFoundError):
            await desk.views.conversation(incoming.conversation_id, "eve", 10)

    async def test_the_latest_turns_are_shown(self, desk: Desk) -> None:
        """A long conversation is cut at whole turns, the latest, oldest of them first."""
        first = await desk.say("turn 1")
        await desk.reply(await desk.take(), "reply 1")
        for number in (2, 3):
            await desk.say(f"turn {number}", first.conversation_id)
            await desk.reply(await desk.take(), f"reply {number}")
        await desk.say("turn 4", first.conversation_id)
        shown = await desk.views.conversation(first.conversation_id, None, 2)
        assert [message.text for message in shown.messages] == ["turn 3", "reply 3", "turn 4"]
        assert shown.has_earlier
        assert not (await desk.views.conversation(first.conversation_id, None, 4)).has_earlier


class TestWaiters:
    async def test_a_local_reply_arrives_at_once(self, desk: Desk) -> None:
        """Who waits in this process gets the reply when it is stored, without looking."""
        incoming = desk.message("hello")
        async with desk.waiters.waiting(incoming.task_id) as future:
            await desk.intake.accept(incoming)
            await desk.reply(await desk.take(), "hi")
            assert (await asyncio.wait_for(future, 5)).text == "hi"
        assert incoming.task_id not in desk.waiters

    async def test_another_process_reply_is_looked_up(self) -> None:
        """A signal from elsewhere leads to one query, for what is waited for only."""
        asked: list[set[str]] = []

        async def look_up(ids: Collection[str]) -> Mapping[str, Reply]:
            asked.append(set(ids))
            return dict.fromkeys(ids, REPLY)

        waiters = Waiters(look_up)
        running = asyncio.create_task(waiters.run())
        async with waiters.waiting("mine") as future, waiters.waiting("other"):
            waiters.hear({"mine", "strange"})
            assert await asyncio.wait_for(future, 5) is REPLY
        assert asked == [{"mine"}]
        running.cancel()

    async def test_a_lost_signal_is_found_by_looking(self) -> None:
        """Without any signal the reply is found, after a failed look as well."""
        looks = 0

        async def look_up(ids: Collection[str]) -> Mapping[str, Reply]:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise StorageUnavailableError("gone")
            return dict.fromkeys(ids, REPLY)

        waiters = Waiters(look_up, poll=0.01)
        running = asyncio.create_task(waiters.run())
        async with waiters.waiting("mine") as future:
            assert await asyncio.wait_for(future, 5) is REPLY
        running.cancel()

    async def test_nothing_is_looked_up_for_nobody(self) -> None:
        """Without waiting requests the database is left alone."""
        looked = asyncio.Event()

        async def look_up(_ids: Collection[str]) -> Mapping[str, Reply]:
            looked.set()
            return {}

        waiters = Waiters(look_up, poll=0.001)
        running = asyncio.create_task(waiters.run())
        waiters.hear({"strange"})
        await asyncio.sleep(0.02)
        assert not looked.is_set()
        running.cancel()
