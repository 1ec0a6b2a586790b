from __future__ import annotations

import asyncio
import runpy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from supportfleet_runtime.agent.turn import Exchange, Turn
from supportfleet_runtime.conversations.escalations import Escalations
from supportfleet_runtime.conversations.memory import LARGEST_ENTRY, LocalMemory, Said, said_with
from supportfleet_runtime.conversations.shared_memory import SharedMemory, decode, encode
from supportfleet_runtime.conversations.turns import Turns
from supportfleet_runtime.queue.deadletters import DeadLetters
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.url import parse_database_url

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCOPE = "shop/helper"
WINDOW = 3
Desk = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_conversations.py"))["Desk"]

texts = st.text(max_size=20)
entries = st.builds(
    Said,
    st.integers(0, 5),
    st.integers(1, 9),
    st.lists(st.builds(Exchange, texts, st.none() | texts, st.integers(1, 9)), max_size=4).map(tuple),
)


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Telling(LocalMemory):
    """A memory that says what it was asked, and how often it could be used."""

    def __init__(self) -> None:
        super().__init__(Seconds(), 3600)
        self.known: list[int] = []

    async def get(self, conversation_ids: Sequence[str]) -> Mapping[str, Said]:
        found = await super().get(conversation_ids)
        self.known.append(len(found))
        return found


class Pod(Desk):  # type: ignore[misc, valid-type]
    """A process with a memory of its own, or one that it shares, or none."""

    def __init__(self, database: Database, clock: Any, memory: Any = None, window: int = WINDOW) -> None:
        super().__init__(database, clock, SCOPE)
        self.window = window
        self.turns = Turns(
            database, self.queue, self.waiters, scope=SCOPE, window=lambda: self.window, now=clock, memory=memory
        )


async def answer(pod: Any, conversation: str | None = None, text: str = "hello", **facts: Any) -> str:
    said = await pod.say(text, conversation)
    await pod.reply(await pod.take(), f"reply to {text}", **facts)
    return str(said.conversation_id)


class TestUse:
    async def test_a_conversation_that_goes_on_is_not_read_again(self, database: Database, clock: Any) -> None:
        """The turn after one that was answered here is shown what memory has, and no messages are read for it."""
        pod = Pod(database, clock, Telling())
        conversation = await answer(pod, text="one")
        await pod.say("two", conversation)
        lease = await pod.take()
        statements: list[str] = []
        engine = database._backend._engine  # type: ignore[attr-defined]

        @event.listens_for(getattr(engine, "sync_engine", engine), "before_cursor_execute")
        def _note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)

        turn = await pod.turns.load(lease.id)
        assert turn.history == (Exchange("one", "reply to one"),)
        assert len(statements) == 1

    async def test_another_pods_answer_makes_it_useless(self, database: Database, clock: Any) -> None:
        """Where another pod answered in between, the entry is out of date and the database is read."""
        here, there = Pod(database, clock, Telling()), Pod(database, clock, Telling())
        conversation = await answer(here, text="one")
        await answer(there, conversation, "two")
        await here.say("three", conversation)
        turn = await here.turns.load((await here.take()).id)
        assert turn.history == (Exchange("one", "reply to one"), Exchange("two", "reply to two"))

    async def test_a_wider_window_is_not_served_short(self, database: Database, clock: Any) -> None:
        """Where the settings ask for more turns than an entry has, the database is read."""
        pod = Pod(database, clock, Telling(), window=1)
        conversation = await answer(pod, text="one")
        for text in ("two", "three"):
            await answer(pod, conversation, text)
        pod.window = 3
        await pod.say("four", conversation)
        turn = await pod.turns.load((await pod.take()).id)
        assert [one.text for one in turn.history] == ["one", "two", "three"]

    async def test_nothing_is_kept_for_no_window(self, database: Database, clock: Any) -> None:
        """An agent that is shown no history keeps none."""
        memory = Telling()
        pod = Pod(database, clock, memory, window=0)
        await answer(pod, await answer(pod))
        assert len(memory) == 0

    @example(steps=["dead", "replay", "here"])
    @settings(max_examples=20)
    @given(steps=st.lists(st.sampled_from(["here", "there", "dead", "replay", "person", "forget"]), max_size=12))
    async def test_memory_changes_nothing(self, tmp_path_factory: Any, steps: list[str]) -> None:
        """Whatever happened to a conversation on two pods, a turn is shown the same with memory as without."""

        def clock() -> datetime:
            return NOON

        folder = tmp_path_factory.mktemp("memory")
        database = Database(parse_database_url(f"sqlite:///{folder}/x.db"))
        await migrate(database)
        memories = {"here": Telling(), "there": Telling()}
        pods = {name: Pod(database, clock, memory) for name, memory in memories.items()}
        plain = Pod(database, clock)
        letters = DeadLetters(database, SCOPE, now=clock)
        calls = Escalations(database, SCOPE, now=clock)
        conversation = await answer(pods["here"], text="first", escalate=True)
        (call,) = await calls.latest(1)
        await calls.claim(call.escalation_id, "bea")
        for number, step in enumerate(steps):
            if step == "person":
                await calls.reply(call.escalation_id, "bea", f"from a person {number}")
                continue
            if step == "forget":
                await memories["here"].forget([conversation])
                continue
            pod = pods[{"dead": "here", "replay": "there"}.get(step, step)]
            if step == "replay":
                if not await letters.replay([letter.task_id for letter in await letters.latest(1)]):
                    continue
            else:
                await pod.say(f"text {number}", conversation)
            lease = await pod.take()
            expected = await plain.turns.load(lease.id)
            assert (await pod.turns.load(lease.id)).history == expected.history
            await pod.reply(lease, f"reply {number}", dead=step == "dead")
        await database.close()


class TestLocal:
    @given(
        puts=st.lists(st.tuples(st.sampled_from("abcdefgh"), entries), max_size=30),
        most=st.integers(1, 6),
        characters=st.integers(0, 200),
    )
    async def test_it_never_outgrows_its_bounds(self, puts: list[tuple[str, Said]], most: int, characters: int) -> None:
        """Whatever is put in, there are never more entries or characters than allowed, and it knows how many."""
        memory = LocalMemory(Seconds(), 10, most_entries=most, most_characters=characters)
        for id_, said in puts:
            memory.put({id_: said})
            assert len(memory) <= most
            assert memory.characters <= characters
            known = await memory.get("abcdefgh")
            assert sum(one.characters for one in known.values()) == memory.characters
            assert known.get(id_, said) == said

    async def test_what_is_old_goes(self) -> None:
        """After its time an entry is neither given nor kept."""
        clock = Seconds()
        memory = LocalMemory(clock, 10)
        memory.put({"a": Said(0, 1, ())})
        clock.now = 9
        assert await memory.get(["a"])
        clock.now = 10
        assert not await memory.get(["a"])
        memory.put({})
        assert len(memory) == 0

    def test_what_is_too_long_is_not_kept(self) -> None:
        """A conversation longer than an entry may be is left to the database."""
        short, long = (Turn("t", "c", "ada", 1, text, NOON) for text in ("x", "x" * LARGEST_ENTRY))
        assert said_with(short, "reply", 5)
        assert said_with(long, "reply", 5) is None


class TestShared:
    @given(said=entries)
    def test_an_entry_comes_back_as_it_went(self, said: Said) -> None:
        """What is read from Redis is what was written, number by number."""
        back = decode(encode(said))
        assert back == said
        assert [one.number for one in back.exchanges] == [one.number for one in said.exchanges]

    @given(value=st.binary(max_size=50) | st.sampled_from([b"{}", b"[]", b'{"revision":1,"last":1,"said":[[1]]}']))
    def test_anything_else_is_no_entry(self, value: bytes) -> None:
        """What somebody else wrote there is passed over."""
        assert decode(value) is None

    async def test_redis_away_is_no_memory(self, capsys: Any) -> None:
        """Without Redis nothing is known, nothing fails, and after three tries it is left alone for ten seconds."""
        clock = Seconds()
        memory = SharedMemory("redis://127.0.0.1:9/0", SCOPE, 60, clock=clock)
        running = asyncio.create_task(memory.run())
        asked = 0
        mget = memory._client.mget

        async def counted(keys: Any) -> Any:
            nonlocal asked
            asked += 1
            return await mget(keys)

        memory._client.mget = counted
        for _ in range(10):
            assert await memory.get(["a"]) == {}
        assert asked == 3
        assert capsys.readouterr().out.count("memory_unavailable") == 1
        clock.now = 10
        assert await memory.get(["a"]) == {}
        assert asked == 4
        memory.put({"a": Said(0, 1, ())})
        running.cancel()
        await memory.close()

    async def test_what_waits_is_bounded(self) -> None:
        """Entries that can't be written yet don't pile up."""
        memory = SharedMemory("redis://127.0.0.1:9/0", SCOPE, 60)
        for number in range(5000):
            memory.put({f"conv_{number}": Said(0, 1, ())})
        assert len(memory._waiting) == 2000
        assert "conv_4999" in memory._waiting
        await memory.close()
