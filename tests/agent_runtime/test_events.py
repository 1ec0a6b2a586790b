from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.conversations.turn_set import TurnSet, parse_turn_set, up_to
from supportfleet_runtime.conversations.watching import REMEMBER_SECONDS, Watching
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.health.window import SHORTEST
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database

ALL = "show me all my orders"
DIGEST = "sha256:" + "a" * 64


class TestTurnSets:
    @given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
    def test_it_is_a_set(self, added: set[int], removed: set[int]) -> None:
        """Whatever is added and removed, it holds the rest, its text gives it back, and the floor is the first hole."""
        made = TurnSet()
        for turn in added:
            made = made.with_turn(turn)
        made = made.without(removed)
        left = added - removed
        assert {turn for turn in range(50) if turn in made} == left
        assert parse_turn_set(str(made)) == made
        assert made.floor == next(turn for turn in range(50) if turn + 1 not in left)

    def test_it_is_short(self) -> None:
        """What is told in order is one range, however long."""
        assert str(up_to(100_000).with_turn(100_001)) == "1-100001"
        assert str(up_to(0)) == "0"

    @given(st.text(alphabet="0123456789-,x ", max_size=20))
    def test_only_what_it_wrote_is_read(self, text: str) -> None:
        """Any other text is refused, whatever it is."""
        with contextlib.suppress(ValueError):
            assert str(parse_turn_set(text)) == text

    @pytest.mark.parametrize(
        "text", ["", "00", "1,2", "2,1", "1-1", "3-2", "1-2,2-4", "-1", "1-", "9" * 10, "1,3," * 200]
    )
    def test_what_is_none(self, text: str) -> None:
        """Ranges that touch, overlap, go backwards or are too many are no set's text."""
        with pytest.raises(ValueError, match="no position"):
            parse_turn_set(text)


@dataclass
class Event:
    name: str
    id: str | None
    data: Any


class Stream:
    """A reader of server-sent events."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.beats = 0

    async def next(self, name: str | None = None, seconds: float = 20) -> Event:
        """The next event, of that name; others are passed over."""
        async with asyncio.timeout(seconds):
            while True:
                event = await self._event()
                if name in {None, event.name}:
                    return event

    async def _event(self) -> Event:
        fields: dict[str, str] = {}
        while True:
            line = (await self.response.content.readline()).decode()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
            if line.startswith(":"):
                self.beats += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))


@contextlib.asynccontextmanager
async def stream(agent: Any, conversation: str, after: str | None = None, **query: str) -> AsyncIterator[Stream]:
    headers = {} if after is None else {"Last-Event-ID": after}
    url = f"/v1/conversations/{conversation}/events"
    async with agent.client.get(url, headers=headers, params=query) as got:
        assert got.status == 200, await got.text()
        assert got.content_type == "text/event-stream"
        yield Stream(got)


class TestStreams:
    async def test_replies_come_as_they_are_stored(self, start_agent: Any) -> None:
        """Who watches a conversation is told each reply, complete, once; what was there before is not."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        async with stream(agent, conversation) as events:
            ready = await events.next()
            assert (ready.name, ready.id) == ("ready", "1")
            said = await agent.say("Where is my order A-1001?", conversation_id=conversation)
            told = await events.next("reply")
        assert told.id == "1-2"
        assert told.data["reply"] == said["reply"]
        assert told.data.keys() >= {"task_id", "message_id", "turn", "intent", "source", "fallback_level"}

    async def test_a_stream_is_resumed_without_gap_or_repetition(self, start_agent: Any) -> None:
        """With Last-Event-ID come exactly the replies that were missed, from whichever pod, in order."""
        one, two = await start_agent(), await start_agent()
        conversation = (await one.say("hello"))["conversation_id"]
        seen: list[int] = []
        position = "0"
        for turn in range(2, 6):
            async with stream(one if turn % 2 else two, conversation, position) as events:
                event = await events.next("reply")
                seen.append(event.data["turn"])
                position = event.id or ""
            await one.say("hello", conversation_id=conversation)
        async with stream(two, conversation, position) as events:
            seen.append((await events.next("reply")).data["turn"])
        assert seen == [1, 2, 3, 4, 5]

    async def test_a_late_reply_is_neither_missed_nor_told_twice(self, start_agent: Any) -> None:
        """A reply that comes after those of later turns keeps its hole in the position until it is there."""
        agent = await start_agent()
        started, release = asyncio.Event(), asyncio.Event()
        handle = agent.parts.long_worker._handle

        async def late(lease: Any) -> None:
            started.set()
            await release.wait()
            await handle(lease)

        agent.parts.long_worker._handle = late
        async with agent.client.post("/v1/messages", json={"customer_id": "cust-1001", "text": ALL}) as got:
            conversation = (await got.json())["conversation_id"]
        await started.wait()
        await agent.say("hello", conversation_id=conversation)
        async with stream(agent, conversation, "0") as events:
            told = await events.next("task")
            assert told.data["status"] == "running"
            assert told.data["progress"] == 0
            early = await events.next("reply")
        assert (early.data["turn"], early.id) == (2, "2")
        release.set()
        async with stream(agent, conversation, early.id) as events:
            last = await events.next("reply")
            await agent.say("hello", conversation_id=conversation)
            after = await events.next("reply")
        assert (last.data["turn"], last.id) == (1, "1-2")
        assert (after.data["turn"], after.id) == (3, "1-3")

    async def test_another_pods_replies_come_too(self, start_agent: Any) -> None:
        """What another process stores reaches who watches here."""
        one, two = await start_agent(), await start_agent()
        conversation = (await one.say("hello"))["conversation_id"]
        async with stream(two, conversation) as events:
            await events.next("ready")
            said = await one.say("Where is my order A-1001?", conversation_id=conversation)
            assert (await events.next("reply")).data["message_id"]
            assert said["reply"]

    async def test_it_is_kept_alive(self, start_agent: Any) -> None:
        """Where nothing happens a comment is sent now and then, and no event."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        streams_of(agent).heartbeat = 0.01
        async with stream(agent, conversation) as events:
            await events.next("ready")
            await asyncio.wait_for(events.response.content.readuntil(b":\n\n"), 10)

    async def test_it_ends_when_the_process_stops(self, start_agent: Any) -> None:
        """A process that drains ends its streams, whose clients then resume elsewhere."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        async with stream(agent, conversation) as events:
            await events.next("ready")
            agent.parts.watching.close()
            with pytest.raises(EOFError):
                await events.next(seconds=5)
        async with agent.client.get(f"/v1/conversations/{conversation}/events") as got:
            assert got.status == 503

    async def test_it_does_not_last_for_ever(self, start_agent: Any) -> None:
        """After its longest time a stream ends, and can be resumed."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        streams_of(agent).longest = 0
        async with stream(agent, conversation) as events:
            await events.next("ready")
            with pytest.raises(EOFError):
                await events.next(seconds=5)


@contextlib.asynccontextmanager
async def streamed(agent: Any, text: str, accept: str = "text/event-stream", **members: Any) -> AsyncIterator[Any]:
    """A message whose answer is to be streamed."""
    headers = {"Accept": accept, "Idempotency-Key": members.pop("key", "")}
    body = {"customer_id": "cust-1001", "text": text, **members}
    sent = {name: value for name, value in headers.items() if value}
    async with agent.client.post("/v1/messages", json=body, headers=sent) as got:
        yield got


async def all_events(got: Any) -> list[Event]:
    """The events of a stream that ends."""
    assert (got.status, got.content_type) == (200, "text/event-stream"), await got.text()
    events, reader = [], Stream(got)
    with contextlib.suppress(EOFError):
        while True:
            events.append(await reader.next())
    return events


class TestStreamedAnswers:
    async def test_a_message_is_answered_by_events(self, start_agent: Any) -> None:
        """Who asks for events gets the message's ids, its task's states and its reply, and the stream ends."""
        agent = await start_agent()
        async with streamed(agent, "Where is my order A-1001?") as got:
            first, *between, last = await all_events(got)
            assert got.headers["X-Request-Id"]
            assert got.headers["RateLimit"]
        assert (first.name, first.id, first.data["status"]) == ("accepted", "0", "queued")
        assert {event.name for event in between} <= {"task"}
        assert (last.name, last.id) == ("reply", "1")
        same = ("task_id", "conversation_id")
        assert [last.data[name] for name in same] == [first.data[name] for name in same]
        assert "DHL" in last.data["reply"]
        assert await agent.metric('agent_request_total{intent="order_status",status="200"}') == 1
        async with agent.client.get(f"/v1/tasks/{first.data['task_id']}") as found:
            assert (await found.json())["reply"] == last.data["reply"]

    async def test_it_tells_nothing_that_was_told(self, start_agent: Any) -> None:
        """In a conversation that goes on only the message's own reply comes; the first event's id resumes before it."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        async with streamed(agent, "Where is my order A-1001?", conversation_id=conversation) as got:
            events = await all_events(got)
        assert [(event.data["turn"], event.id) for event in events if event.name == "reply"] == [(2, "1-2")]
        async with stream(agent, conversation, events[0].id) as resumed:
            assert (await resumed.next("reply")).data["turn"] == 2

    async def test_what_takes_long_is_waited_for(self, start_agent: Any) -> None:
        """A long task's reply comes in the stream, which counts for no longer than a customer waits for an answer."""
        agent = await start_agent(API_TIMEOUT_SECONDS="0")
        async with streamed(agent, ALL) as got:
            events = await all_events(got)
        assert events[-1].name == "reply"
        assert events[-1].data["intent"] == "detailed_history"
        assert agent.parts.window.figures().latency_p99 == SHORTEST

    async def test_a_message_sent_again_is_told_again(self, start_agent: Any) -> None:
        """The same key has the first message's events, whatever came after it, and says so."""
        agent = await start_agent()
        async with streamed(agent, "hello", key="one") as got:
            first = await all_events(got)
            assert "Idempotency-Replayed" not in got.headers
        await agent.say("hello", conversation_id=first[0].data["conversation_id"])
        async with streamed(agent, "hello", key="one") as got:
            again = await all_events(got)
            assert got.headers["Idempotency-Replayed"] == "true"
        assert [event.data for event in (again[0], again[-1])] == [event.data for event in (first[0], first[-1])]
        assert len(again) == 2

    @pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/event-stream", "text/*"])
    async def test_json_is_the_answer_else(self, start_agent: Any, accept: str) -> None:
        """Who doesn't ask for events alone gets JSON."""
        agent = await start_agent()
        async with streamed(agent, "hello", accept) as got:
            assert (got.status, got.content_type) == (200, "application/json")

    async def test_refusals_are_problems(self, start_agent: Any) -> None:
        """What is refused is refused as ever; a message that there is no stream for is not taken in."""
        agent = await start_agent(EVENT_STREAMS_PER_CUSTOMER="1")
        conversation = (await agent.say("hello"))["conversation_id"]
        async with streamed(agent, "") as got:
            assert (got.status, got.content_type) == (422, "application/problem+json")
        async with stream(agent, conversation) as events:
            await events.next("ready")
            async with streamed(agent, "hello", conversation_id=conversation) as got:
                assert (got.status, got.content_type) == (429, "application/problem+json")
                assert got.headers["Retry-After"]
        async with agent.client.get(f"/v1/conversations/{conversation}") as got:
            assert len((await got.json())["messages"]) == 2

    async def test_a_stored_message_is_never_refused(self, start_agent: Any) -> None:
        """Where a message is stored and can't be watched it is a task to ask for, and no error."""
        agent = await start_agent()

        async def fails(_conversation: str, _task: str) -> TurnSet:
            raise StorageUnavailableError("the database is away")

        agent.parts.updates.before = fails
        async with streamed(agent, "hello") as got:
            assert got.status == 202
            assert got.headers["Location"] == f"/v1/tasks/{(await got.json())['task_id']}"

    async def test_a_client_that_leaves(self, start_agent: Any) -> None:
        """Who leaves once the message is stored, before the first event, is no error of the server's."""
        agent = await start_agent()
        before, server = agent.parts.updates.before, agent.client.server.runner.server
        server.handler_cancellation = False  # a test server cancels handlers whose clients left, and the commands don't
        body = b'{"customer_id": "cust-1001", "text": "hello"}'
        head = (
            b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n"
        )
        _, writer = await asyncio.open_connection(agent.client.host, agent.client.port)

        async def once_it_left(*ids: str) -> TurnSet:
            writer.close()
            async with asyncio.timeout(20):
                while all(one.transport for one in server.connections):  # noqa: ASYNC110 - aiohttp sets no event
                    await asyncio.sleep(0.01)
            found: TurnSet = await before(*ids)
            return found

        agent.parts.updates.before = once_it_left
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(40):
            while not (await agent.metric('agent_request_total{intent="none",status="200"}')):
                assert not await agent.metric('agent_request_total{intent="none",status="500"}')
                await asyncio.sleep(0.05)


class TestRefusals:
    async def test_only_its_customer_watches(self, start_agent: Any) -> None:
        """Another customer's conversation is not found, nor is one that doesn't exist."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        for path in (f"{conversation}/events?customer_id=eve", "conv_" + "0" * 26 + "/events", "x/events"):
            async with agent.client.get(f"/v1/conversations/{path}") as got:
                assert got.status == 404
        async with stream(agent, conversation, customer_id="cust-1001") as events:
            await events.next("ready")

    async def test_a_position_that_is_none(self, start_agent: Any) -> None:
        """What is no event's id is refused, and the header named."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        for position in ("x", "2-1", "1,,2"):
            headers = {"Last-Event-ID": position}
            async with agent.client.get(f"/v1/conversations/{conversation}/events", headers=headers) as got:
                assert got.status == 422
                assert json.loads(await got.text())["errors"][0]["pointer"] == "Last-Event-ID"

    async def test_there_are_so_many_and_no_more(self, start_agent: Any) -> None:
        """A customer has a number of streams, and so has the pod; one that ends makes room."""
        agent = await start_agent(EVENT_STREAMS="2", EVENT_STREAMS_PER_CUSTOMER="1")
        conversations = []
        for customer in ("ada", "bob", "eve"):
            body = {"customer_id": customer, "text": "hello"}
            async with agent.client.post("/v1/messages", json=body) as got:
                conversations.append((await got.json())["conversation_id"])
        ada, bob, eve = conversations
        async with stream(agent, ada) as first:
            await first.next("ready")
            async with agent.client.get(f"/v1/conversations/{ada}/events") as got:
                assert got.status == 429
                assert got.headers["Retry-After"]
            async with stream(agent, bob) as second:
                await second.next("ready")
                async with agent.client.get(f"/v1/conversations/{eve}/events") as got:
                    assert got.status == 503
        streams = streams_of(agent)
        agent.parts.watching.changed([ada, bob])
        async with asyncio.timeout(10):
            while streams._open:
                agent.parts.watching.changed([ada, bob])
                await asyncio.sleep(0.01)
        async with stream(agent, eve) as third:
            await third.next("ready")

    async def test_head_has_no_body(self, start_agent: Any) -> None:
        """HEAD ends at once."""
        agent = await start_agent()
        conversation = (await agent.say("hello"))["conversation_id"]
        async with agent.client.head(f"/v1/conversations/{conversation}/events") as got:
            assert (got.status, await got.read()) == (200, b"")
        assert not streams_of(agent)._open


class TestWatching:
    def made(self, database: Database, marks: dict[str, Any] | None = None, **more: Any) -> Watching:
        async def look_up(ids: Collection[str]) -> dict[str, Any]:
            return {id_: (marks or {}).get(id_) for id_ in ids}

        return Watching(database, look_up, **more)

    async def test_a_lost_signal_is_found_by_looking(self, database: Database) -> None:
        """A change that nobody told of rings the bell once it is looked for, and only that conversation's."""
        marks = {"mine": 1, "other": 1}
        watching = self.made(database, marks)
        with watching.watching("mine") as mine, watching.watching("other") as other:
            await watching.look()
            mine.clear()
            other.clear()
            marks["mine"] = 2
            await watching.look()
            assert (mine.is_set(), other.is_set()) == (True, False)

    async def test_who_watches_elsewhere_is_remembered_for_a_while(self, database: Database) -> None:
        """Announcements hold for a time; one's own are none."""
        now = 0.0
        watching = self.made(database, clock=lambda: now)
        watching.hear(signals.WATCHED, "another-process,conv_a,conv_b")
        watching.hear(signals.WATCHED, f"{watching._token},conv_c")
        assert watching.elsewhere(["conv_a", "conv_c", "conv_a"]) == ["conv_a"]
        now = REMEMBER_SECONDS + 1
        assert watching.elsewhere(["conv_a"]) == []

    async def test_a_signal_rings_the_bell(self, database: Database) -> None:
        """What another process says has changed is told here to who watches it."""
        watching = self.made(database)
        with watching.watching("conv_a") as bell:
            watching.hear(signals.CHANGED, "conv_b")
            assert not bell.is_set()
            watching.hear(signals.CHANGED, "conv_b,conv_a")
            assert bell.is_set()
        watching.hear(signals.CHANGED, "conv_a")
        assert not watching._bells


def streams_of(agent: Any) -> Any:
    """The endpoint's object of a running agent."""
    router = agent.client.app.router
    (handler,) = {route.handler for route in router.routes() if route.resource.canonical.endswith("/events")}
    return handler.__self__
