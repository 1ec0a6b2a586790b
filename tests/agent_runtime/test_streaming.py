"""Answers that are heard while the language model speaks: what is told, what is void, and how streams fail."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import runpy
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.breaker import CircuitBreaker, State
from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.guard import Guard
from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.agent.providers import Prompt, Utterance
from supportfleet_runtime.agent.providers.claude import ClaudeProvider, ClaudeSettings
from supportfleet_runtime.agent.providers.messages_api import answer_of
from supportfleet_runtime.agent.providers.streamed import StreamedAnswer
from supportfleet_runtime.agent.providers.tool_use import tool_uses
from supportfleet_runtime.conversations.drafts import Drafts, Heard
from supportfleet_runtime.conversations.turn_set import TurnSet
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database

API = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "messages_api.py")))
PROMPT = Prompt("Be kind.", (Utterance("user", "boots?"),))
BOOTS = "Do your boots run small?"
ONLY_PEOPLE = json.dumps({"rules": {"intents": ["human"]}})
MUCH = 8 * 1024 * 1024
"""More than the buffers of a connection hold."""
NONE_SEEN = TurnSet()
NO_HOLDS: Mapping[str, asyncio.Event] = MappingProxyType({})


def as_sent(body: dict[str, Any], size: int = 4) -> list[Any]:
    """The events of a message's stream as the SDK hands them on."""
    return [event for event in API.stream_of(body, size) if event["type"] != "ping"]


class TestMessages:
    @given(
        st.lists(st.text(st.sampled_from("ab \n\x00é"), max_size=12), max_size=3),
        st.integers(1, 5),
        st.sampled_from(["end_turn", "max_tokens", "refusal", "tool_use"]),
    )
    def test_a_stream_makes_the_same_message(self, texts: list[str], size: int, stop_reason: str) -> None:
        """However a message is cut, its stream makes the same reply, or failure, and each text begins the next."""
        body = API.tool_use(("order_lookup", {"order_number": "A-1001"}))
        body |= {"stop_reason": stop_reason}
        body["content"] = [{"type": "text", "text": text} for text in texts] + body["content"]
        coming, told = StreamedAnswer(), ""
        for event in as_sent(body, size):
            coming.take(event)
            assert coming.so_far.text.startswith(told)
            told = coming.so_far.text
        assert coming.whole() == answer_of(body)

    def test_a_tools_arguments_that_were_cut_off(self) -> None:
        """A message that reached its limit while it asked for a tool doesn't ask for it, and its text is a reply."""
        body = {**API.tool_use(("order_lookup", {"order_number": "A-1001"}), text="Wait"), "stop_reason": "max_tokens"}
        coming = StreamedAnswer()
        events = as_sent(body)
        del events[max(number for number, event in enumerate(events) if event["type"] == "content_block_delta")]
        for event in events:
            coming.take(event)
        assert coming.whole().text == "Wait"
        assert not tool_uses(coming.whole())


@pytest.fixture
async def listen(messages_api: Any) -> AsyncIterator[Any]:
    """Ask Claude's stand-in, and listen: what it said each time that was something else, and the reply."""
    providers: dict[Any, ClaudeProvider] = {}

    async def listen(
        told: list[str], spent: list[Usage] | None = None, guard: Guard | None = None, within: float = 30, **facts: Any
    ) -> Any:
        async def sleep(_seconds: float) -> None:
            """Pauses take no time here."""

        values = {"model": "claude-test", "timeout": 5.0, "retries": 0, "max_tokens": 100, **facts}
        settings = ClaudeSettings(api_key=messages_api.key, base_url=messages_api.url, **values)
        count = spent.append if spent is not None else lambda _usage: None
        if (key := (settings, id(spent), guard)) not in providers:
            providers[key] = ClaudeProvider(settings, count, guard or new_guard(), sleep=sleep, chance=lambda: 1.0)
        draft = Draft("task_1", 1, lambda: told.append(draft.text))
        return await providers[key].complete(PROMPT, within=within, draft=draft)

    yield listen
    for provider in providers.values():
        await provider.close()


def new_guard(failures: int = 5) -> Guard:
    return Guard(*(CircuitBreaker(time.monotonic, failures=failures) for _ in range(2)))


async def reason(asked: Any) -> str:
    """Why an ask failed."""
    with pytest.raises(ProviderError) as raised:
        await asked
    return raised.value.reason


MALFORMED = [
    [],
    [b"data: {}"],
    [b"event: message_start", b"data: null"],
    [b"event: message_start", b"data: not json"],
    [b"event: message_start", b"data: \xff\xfe"],
    [b"event: message_start", b'data: {"type": "message_start", "message": 5}'],
    [b"event: message_start", b'data: {"type": "message_start", "message": {"content": "text"}}'],
    [b"event: message_stop", b'data: {"type": "message_stop"}'],
    [b"event: error", b"data: overloaded"],
    [b"event: error", b'data: {"type": "error", "error": {"type": ["x"]}}'],
]
"""Streams that are none, as lines."""
CHANGES: list[dict[str, Any]] = [
    {"index": 7},
    {"index": None},
    {"delta": None},
    {"delta": {"type": "text_delta", "text": None}},
    {"delta": {"type": "text_delta", "text": "\ud83d"}},
    {"delta": {"type": "input_json_delta", "partial_json": 5}},
    {"type": "message_delta", "delta": None},
]
"""What an event in mid-stream may be instead of a text that goes on."""


class TestCalls:
    async def test_the_reply_is_told_as_it_comes(self, listen: Any, messages_api: Any) -> None:
        """The text grows to the reply's; the model, and what was counted, are those of any call."""
        told: list[str] = []
        spent: list[Usage] = []
        got = await listen(told, spent)
        assert (got.text, got.model) == ("An answer from the model.", "claude-test")
        assert len(told) > 3
        assert told[-1] == got.text
        assert spent == [Usage("claude-test", 21, 7)]
        assert messages_api.requests[-1]["stream"] is True

    async def test_what_is_told_is_as_clean_as_the_reply(self, listen: Any, messages_api: Any) -> None:
        """What no reply has, blanks around it and what a database can't store, is not told either."""
        told: list[str] = []
        messages_api.then_say(messages_api.message("\n  Kind\x00ly, \n yes. \n"))
        got = await listen(told)
        assert got.text == told[-1] == "Kindly, \n yes."
        assert all(got.text.startswith(text) for text in told)

    @pytest.mark.parametrize(
        ("how", "expected", "breaker"),
        [
            ("overloaded_error", "overloaded", "model"),
            ("rate_limit_error", "rate_limited", "model"),
            ("api_error", "server_error", "service"),
            ("unheard_of_error", "server_error", "service"),
            ("breaks", "unreachable", "service"),
            ("ends", "unreachable", "service"),
            ("silent", "timeout", "service"),
            ("pings", "timeout", "service"),
        ],
    )
    async def test_faults_in_mid_stream(
        self, listen: Any, messages_api: Any, how: str, expected: str, breaker: str
    ) -> None:
        """Each is the failure that it is before a stream: the reason, the breaker and its count; what was told is void.

        What the service had counted by then is counted, once for each stream.
        """
        limit, failures = (2.0, 2) if expected == "timeout" else (5.0, 5)
        guard, told, spent = new_guard(failures), [], []
        for number in range(failures):
            assert guard.service.state is guard.model.state is State.CLOSED, number
            messages_api.then_break(how, messages_api.message("It begins well"), 6)
            assert await reason(listen(told, spent, guard, timeout=limit)) in {expected, "unreachable"}
            assert "It begin" in told
            assert told[-1] == ""
        states = {"service": guard.service.state, "model": guard.model.state}
        assert states == {"service": State.CLOSED, "model": State.CLOSED, breaker: State.OPEN}
        assert spent == [Usage("claude-test", 21, 1)] * failures
        assert await reason(listen(told, spent, guard, timeout=limit)) == "circuit_open"
        assert messages_api.attempts == failures

    @pytest.mark.parametrize("how", ["overloaded_error", "api_error", "breaks", "ends"])
    async def test_the_retries_owner_is_the_same(self, listen: Any, messages_api: Any, how: str) -> None:
        """What is passing is tried again, as with any call, once what was told is void; both calls are counted."""
        told: list[str] = []
        spent: list[Usage] = []
        messages_api.then_break(how, messages_api.message("It begins well"), 6)
        got = await listen(told, spent, retries=1)
        assert messages_api.attempts == 2
        assert told.index("") > told.index("It begin")
        assert told[-1] == got.text == "An answer from the model."
        assert spent == [Usage("claude-test", 21, 1), Usage("claude-test", 21, 7)]

    @pytest.mark.parametrize("how", ["invalid_request_error", "authentication_error"])
    async def test_what_is_final_is_not_tried_again(self, listen: Any, messages_api: Any, how: str) -> None:
        """An error that the same request would meet again ends it, in mid-stream too."""
        messages_api.then_break(how, messages_api.message("It begins well"), 6)
        assert await reason(listen([], retries=3)) in {"refused", "authentication"}
        assert messages_api.attempts == 1

    async def test_a_caller_that_goes_is_no_failure(self, listen: Any, messages_api: Any) -> None:
        """A stream that is cancelled says nothing of the service; what was told is void, what it took is counted."""
        guard, told, spent = new_guard(), [], []
        for _ in range(6):
            messages_api.then_break("silent", messages_api.message("It begins well"), 6)
            told.clear()
            asking = asyncio.create_task(listen(told, spent, guard))
            while not told or "begi" not in told[-1]:  # noqa: ASYNC110 - the draft is a list here
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert told[-1] == ""
        assert guard.service.state is State.CLOSED
        assert len(spent) == 6

    async def test_a_message_that_came_to_its_end(self, listen: Any, messages_api: Any) -> None:
        """A connection that breaks after the end of the message has broken nothing."""
        body = messages_api.message("It ends well")
        messages_api.then_break("breaks", body, len(messages_api.stream_of(body)))
        assert (await listen([])).text == "It ends well"

    async def test_a_service_that_does_not_stream(self, listen: Any, messages_api: Any) -> None:
        """Who answers all at once, though asked to stream, has answered."""
        messages_api.streams = False
        told: list[str] = []
        spent: list[Usage] = []
        assert (await listen(told, spent)).text == "An answer from the model."
        assert told == []
        assert spent == [Usage("claude-test", 21, 7)]

    @pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
    async def test_malformed_streams(self, listen: Any, messages_api: Any, content_type: str) -> None:
        """Whatever comes, it is a failure that is understood."""
        messages_api.streams = False
        guard = new_guard(999)
        for lines in MALFORMED:
            body = b"".join(line + b"\n" for line in [*lines, b""])
            messages_api.then(functools.partial(web.Response, body=body, content_type=content_type))
            assert await reason(listen([], guard=guard)) in {"malformed", "empty", "unreachable", "server_error"}, lines

    async def test_malformed_events(self, listen: Any, messages_api: Any) -> None:
        """An event in mid-stream that is not as documented is a failure, and what was told is void."""
        messages_api.streams = False
        guard = new_guard(999)
        for change in CHANGES:
            told: list[str] = []
            events = messages_api.stream_of(messages_api.message("It begins well"))
            events[5] = {"type": "content_block_delta", "index": 0} | change
            text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
            messages_api.then(functools.partial(web.Response, text=text, content_type="text/event-stream"))
            assert await reason(listen(told, guard=guard)) == "malformed", change
            assert told == ["It b", "It begin", ""]


class Listener:
    """Does as the documentation says: a delta goes on, a reset begins anew."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.shown = ""
        self.events = 0

    def look(self, drafts: Any, seen: TurnSet = NONE_SEEN) -> None:
        self.take(self.heard.news(drafts, seen))

    def take(self, news: Any) -> None:
        for one in news:
            self.events += 1
            self.shown = "" if one.text is None else self.shown + one.text


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["say", "say", "replace", "void", "again", "look"]), st.text("abc ", max_size=3)),
    max_size=30,
)


class TestListeners:
    @given(OPERATIONS, st.booleans(), st.sampled_from(["", "\n\nA colleague will write.", None]))
    def test_deltas_are_how_the_reply_begins(self, done: list[tuple[str, str]], late: bool, more: str | None) -> None:  # noqa: FBT001 - as drawn
        """Whatever becomes of drafts, and whenever who listens looks, what was said since the last reset is the text.

        Once the reply is stored, it is how the reply begins; all that the draft said of it, if they knew of the draft.
        """
        listener = Listener()
        draft, is_known = Draft("task_1", 1, lambda: None), False
        for operation, text in done:
            if operation == "say":
                draft.tell(draft.text + text)
            elif operation == "replace":
                draft.tell(text)
            elif operation == "void":
                draft.void()
            elif operation == "again":
                draft.void()
                draft, is_known = Draft("task_1", 1, lambda: None), False
            else:
                is_known = True
                listener.look([draft])
                assert listener.shown == draft.text
        listener.look([] if late else [draft])
        reply = draft.text + more if more is not None else "Something else."
        before = listener.shown
        assert before == draft.text or (late and not is_known)
        listener.take(listener.heard.ended("task_1", 1, reply))
        assert reply.startswith(listener.shown)
        assert listener.shown in {before, ""}
        listener.look([draft], TurnSet(((1, 1),)))
        assert reply.startswith(listener.shown), "nothing is told after the reply"

    def test_a_slow_listener_has_nothing_kept_for_them(self) -> None:
        """Whatever was said while they didn't look is one event, and no more than the text is kept."""
        listener, draft = Listener(), Draft("task_1", 1, lambda: None)
        for number in range(1000):
            draft.tell("x" * number)
        listener.look([draft])
        assert (listener.events, listener.shown) == (1, draft.text)

    async def test_a_draft_is_nothing_stored(self, database: Database) -> None:
        """Who watches is woken for a draft, and knows that there is nothing to be read, unless there is that, too."""

        async def look_up(_ids: Any) -> dict[str, Any]:
            return {}

        watching = Watching(database, look_up)
        with watching.watching("conv_1") as bell, watching.watching("conv_2") as other:
            watching.nudge("conv_1")
            assert (bell.is_set(), bell.is_stored, other.is_set()) == (True, False, False)
            watching.changed(["conv_1"])
            watching.nudge("conv_1")
            assert bell.is_stored
            bell.clear()
            assert (bell.is_set(), bell.is_stored) == (False, False)
        watching.nudge("conv_1")

    def test_only_where_somebody_listens(self) -> None:
        """There is a draft for who listens when the work begins, and it ends with the work; by a failure it is void."""
        changed: list[str] = []
        drafts = Drafts(changed.append)
        turn: Any = SimpleNamespace(task_id="task_1", conversation_id="conv_1", number=1)
        with drafts.writing(turn) as draft:
            assert draft is None
        with drafts.listening("conv_1"), drafts.listening("conv_2"):
            with contextlib.suppress(RuntimeError), drafts.writing(turn) as draft:
                assert draft
                draft.tell("Hello")
                assert [one.text for one in drafts.of("conv_1")] == ["Hello"]
                assert not drafts.of("conv_2")
                raise RuntimeError
            assert draft
            assert draft.text == ""
        assert changed == ["conv_1", "conv_1"]
        assert not drafts._listeners
        assert not drafts._open


class Events:
    """A reader of server-sent events."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def next(self, *names: str) -> Any:
        """The next event, of one of these names; others are passed over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(30):
            while line := await self.response.content.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif fields.get("event") in names:
                    return SimpleNamespace(name=fields["event"], id=fields.get("id"), data=json.loads(fields["data"]))
                else:
                    fields = {}
        raise EOFError


@contextlib.asynccontextmanager
async def said(agent: Any, text: str = BOOTS, **members: Any) -> AsyncIterator[Events]:
    """A message whose answer is streamed: its events."""
    body, headers = {"customer_id": "cust-1001", "text": text, **members}, {"Accept": "text/event-stream"}
    async with agent.client.post("/v1/messages", json=body, headers=headers) as got:
        assert (got.status, got.content_type) == (200, "text/event-stream"), await got.text()
        yield Events(got)


@dataclass
class Seen:
    """What was shown before each reset, what was shown at the end, and the reply."""

    voided: list[str]
    shown: str
    reply: dict[str, Any]


async def watch(events: Events, holds: Mapping[str, asyncio.Event] = NO_HOLDS, before: str = "") -> Seen:
    """See an answer to its end; where a text of ``holds`` is shown, let go what waits for that."""
    voided, shown = [], before
    while True:
        event = await events.next("delta", "reset", "reply")
        if event.name == "reply":
            assert event.data["reply"].startswith(shown)
            with pytest.raises(EOFError):
                await events.next("delta", "reset", "reply")
            return Seen(voided, shown, event.data)
        assert event.id is None
        more = {"text"} if event.name == "delta" else set()
        assert event.data.keys() == {"task_id", "conversation_id", "turn"} | more
        if event.name == "reset":
            voided.append(shown)
            shown = ""
        else:
            assert event.data["text"]
            shown += event.data["text"]
        if shown in holds:
            holds[shown].set()


def streams_of(agent: Any) -> Any:
    """The endpoint's object of a running agent."""
    router = agent.client.app.router
    (handler,) = {route.handler for route in router.routes() if route.resource.canonical.endswith("/events")}
    return handler.__self__


class TestTheWholeAgent:
    def environ(self, api: Any, **more: str) -> dict[str, str]:
        given = {"ANTHROPIC_API_KEY": api.key, "ANTHROPIC_BASE_URL": api.url, "CLAUDE_MODEL": "claude-best"}
        return {**given, "CLAUDE_RETRIES": "0", **more}

    async def test_who_listens_hears_it_before_it_is_all_said(self, start_agent: Any, messages_api: Any) -> None:
        """The text comes while the model still speaks, and is the reply's; who doesn't listen has it as ever."""
        agent = await start_agent(**self.environ(messages_api))
        goes_on = messages_api.then_pause(messages_api.message("They run true to size."), 6)
        async with said(agent) as events:
            got = await watch(events, {"They run tru": goes_on})
        assert goes_on.is_set(), "it was heard while the model waited"
        assert (got.voided, got.shown) == ([], "They run true to size.")
        assert got.reply["reply"] == got.shown
        assert (got.reply["fallback_level"], got.reply["model"]) == (0, "claude-test")
        async with agent.client.get(f"/v1/tasks/{got.reply['task_id']}") as stored:
            assert (await stored.json())["reply"] == got.shown
        assert messages_api.requests[-1]["stream"] is True
        await agent.say("And your socks?")
        assert not messages_api.requests[-1].get("stream")
        assert not agent.parts.drafts._open
        assert not agent.parts.drafts._listeners

    async def test_each_piece_is_heard_when_it_is_said(self, start_agent: Any, messages_api: Any) -> None:
        """A piece is told at once, without a look at the database for it."""
        agent = await start_agent(**self.environ(messages_api))
        streams_of(agent).heartbeat = 3600
        since, looks = agent.parts.updates.since, []

        async def counted(*asked: Any) -> Any:
            looks.append(asked)
            return await since(*asked)

        agent.parts.updates.since = counted
        body = messages_api.message("x" * 80)
        steps, pieces = messages_api.then_step(body), 20
        async with said(agent) as events:
            for _ in range(3):  # the message begins, and a block of it, and a ping
                steps.release()
            for _ in range(pieces):
                steps.release()
                assert (await events.next("delta")).data["text"] == "xxxx"
            for _ in messages_api.stream_of(body):
                steps.release()
            assert (await watch(events, before="x" * 80)).shown == "x" * 80
        assert len(looks) < pieces / 2

    async def test_who_listens_is_known_before_the_message_is_worked(self, start_agent: Any, messages_api: Any) -> None:
        """However long it takes until the stream begins, the model is asked to stream from the beginning."""
        agent = await start_agent(**self.environ(messages_api))
        before = agent.parts.updates.before

        async def once_it_is_asked(*ids: str) -> Any:
            async with asyncio.timeout(30):
                while not messages_api.requests:  # noqa: ASYNC110 - a server's requests set no event
                    await asyncio.sleep(0.02)
            return await before(*ids)

        agent.parts.updates.before = once_it_is_asked
        goes_on = messages_api.then_pause(messages_api.message("They run true to size."), 6)
        async with said(agent) as events:
            got = await watch(events, {"They run tru": goes_on})
        assert got.shown == "They run true to size."

    async def test_who_watches_the_conversation_hears_it_too(self, start_agent: Any, messages_api: Any) -> None:
        """A conversation's events tell its drafts, also to who comes when much was said already."""
        agent = await start_agent(**self.environ(messages_api))
        conversation = (await agent.say("hello"))["conversation_id"]
        goes_on = messages_api.then_pause(messages_api.message("They run true to size."), 6)
        async with said(agent, conversation_id=conversation) as events:
            shown = ""
            while shown != "They run tru":
                shown += (await events.next("delta")).data["text"]
            async with agent.client.get(f"/v1/conversations/{conversation}/events") as got:
                watching = Events(got)
                assert (await watching.next("delta")).data["text"] == "They run tru"
                goes_on.set()
                assert (await watching.next("reply")).data["reply"] == "They run true to size."

    @pytest.mark.parametrize("how", API.BREAKS)
    async def test_the_next_level_begins_anew(self, start_agent: Any, messages_api: Any, how: str) -> None:
        """Where the model fails in mid-stream what was shown is void, and the fallback model's text is the reply."""
        limit = "4" if how in {"silent", "pings"} else "10"
        agent = await start_agent(**self.environ(messages_api, FALLBACK_MODEL="claude-spare", CLAUDE_TIMEOUT=limit))
        fails = messages_api.then_break(how, messages_api.message("They run smaller than", model="claude-best"), 6)
        fails.clear()
        async with said(agent) as events:
            got = await watch(events, {"They run sma": fails})
        assert (got.voided, got.shown) == (["They run sma"], "An answer from the model.")
        assert (got.reply["reply"], got.reply["fallback_level"]) == (got.shown, 2)
        counted = {"claude-best": (21, 1), "claude-spare": (21, 7)}
        for model, (read, written) in counted.items():
            assert await agent.metric(f'agent_tokens_total{{kind="input",model="{model}"}}') == read
            assert await agent.metric(f'agent_tokens_total{{kind="output",model="{model}"}}') == written

    async def test_where_nobody_is_left(self, start_agent: Any, messages_api: Any) -> None:
        """Where no model comes to an end nothing is left shown, and the generic reply is the reply."""
        agent = await start_agent(**self.environ(messages_api, FALLBACK_MODEL="claude-spare"))
        holds = {}
        for text in ("They run ", "They fit "):
            holds[text.strip()] = messages_api.then_break("overloaded_error", messages_api.message(text * 2), 5)
            holds[text.strip()].clear()
        async with said(agent) as events:
            got = await watch(events, holds)
        assert (got.voided, got.shown) == (["They run", "They fit"], "")
        assert got.reply["fallback_level"] == 4

    async def test_a_refusal_is_void(self, start_agent: Any, messages_api: Any) -> None:
        """A model that stops and declines has not answered, whatever it had said."""
        agent = await start_agent(**self.environ(messages_api))
        refused = messages_api.message("First, take", stop_reason="refusal")
        declines = messages_api.then_pause(refused, len(messages_api.stream_of(refused)) - 2)
        messages_api.then_say(refused)  # without tools
        async with said(agent) as events:
            got = await watch(events, {"First, take": declines})
        assert got.voided[0] == "First, take"
        assert (got.shown, got.reply["fallback_level"]) == ("", 4)

    async def test_what_is_said_before_a_tool_is_shown_until_there_is_more(
        self, start_agent: Any, messages_api: Any, tmp_path: Path
    ) -> None:
        """Who waits for a tool sees what the model said before, which the answer proper takes the place of."""
        (tmp_path / "agent_config.json").write_text(ONLY_PEOPLE)
        agent = await start_agent(**self.environ(messages_api))
        asks = messages_api.tool_use(("order_lookup", {"order_number": "A-1001"}), text="Let me look.")
        looks = messages_api.then_pause(asks, len(messages_api.stream_of(asks)) - 2)
        answers = messages_api.then_pause(messages_api.message("It is on its way."), 1)
        async with said(agent, "Where is my order A-1001?") as events:
            shown = ""
            while shown != "Let me look.":
                shown += (await events.next("delta", "reset")).data["text"]
            looks.set()
            async with asyncio.timeout(30):
                while not messages_api.results():  # noqa: ASYNC110 - a server's requests set no event
                    await asyncio.sleep(0.02)
            answers.set()
            assert (await events.next("delta", "reset")).name == "reset", "not before the model goes on"
            got = await watch(events)
        assert (got.voided, got.shown) == ([], "It is on its way.")
        assert (got.reply["reply"], got.reply["tools_enabled"]) == (got.shown, True)
        assert json.loads(messages_api.results()[0]["content"])["status"] == "done"
        assert await agent.metric('agent_tokens_total{kind="input",model="claude-test"}') == 42

    async def test_a_gone_listener(self, start_agent: Any, messages_api: Any) -> None:
        """The answer is stored as always where who listened left in the middle of it, and nothing is kept of them."""
        agent = await start_agent(**self.environ(messages_api))
        goes_on = messages_api.then_pause(messages_api.message("They run true to size."), 6)
        async with said(agent) as events:
            task_id = (await events.next("delta")).data["task_id"]
        goes_on.set()
        async with asyncio.timeout(30):
            while True:
                async with agent.client.get(f"/v1/tasks/{task_id}") as got:
                    task = await got.json()
                if task["status"] == "done" and not agent.parts.drafts._open:
                    break
                await asyncio.sleep(0.02)
        assert task["reply"] == "They run true to size."

    async def test_a_listener_that_does_not_read(self, start_agent: Any, messages_api: Any) -> None:
        """The answer is stored as always, and others are answered, while who listens reads nothing of what is said."""
        agent = await start_agent(**self.environ(messages_api))
        body = messages_api.message("x" * MUCH)

        async def says_much(request: web.Request) -> web.StreamResponse:
            got: web.StreamResponse = await messages_api._stream(request, API.stream_of(body, MUCH // 32))
            return got

        messages_api.behaviours.append(says_much)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(listener.connect, (agent.client.host, agent.client.port))
            sent = json.dumps({"customer_id": "cust-1001", "text": BOOTS}).encode()
            head = (
                "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: text/event-stream"
            )
            listener.sendall(f"{head}\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
            async with asyncio.timeout(60):
                while not await agent.metric('agent_task_total{outcome="done"}'):  # noqa: ASYNC110 - as it is read
                    await asyncio.sleep(0.05)
            assert (await agent.say("hello"))["reply"]
            assert streams_of(agent)._open == {"cust-1001": 1}, "it is being told still"
            assert not agent.parts.drafts._open

    async def test_who_listens_elsewhere_gets_the_reply(self, start_agent: Any, messages_api: Any) -> None:
        """A worker of its own streams nothing: nobody listens there. The gateway's listener has the reply as ever."""
        gateway = await start_agent(Role.GATEWAY)
        await start_agent(Role.WORKER, **self.environ(messages_api))
        async with said(gateway) as events:
            got = await watch(events)
        assert (got.voided, got.shown, got.reply["reply"]) == ([], "", "An answer from the model.")
        assert not messages_api.requests[-1].get("stream")
