from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.breaker import CircuitBreaker, State
from supportfleet_runtime.agent.guard import Guard
from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.agent.providers import Prompt, Utterance
from supportfleet_runtime.agent.providers.claude import (
    LONGEST_PAUSE,
    ClaudeProvider,
    ClaudeSettings,
    pause_before_retry,
)
from supportfleet_runtime.errors import ProviderError

PROMPT = Prompt("Be kind.", (Utterance("user", "hi"), Utterance("assistant", "hello"), Utterance("user", "boots?")))


@pytest.fixture
async def ask(messages_api: Any) -> Any:
    """Ask Claude's stand-in; ``pauses`` gathers the waits between tries, which take no time here."""
    providers: list[ClaudeProvider] = []

    async def ask(
        *,
        key: str = messages_api.key,
        url: str = "",
        pauses: list[float] | None = None,
        spent: list[Usage] | None = None,
        guard: Guard | None = None,
        within: float = 30,
        **facts: Any,
    ) -> Any:
        async def sleep(seconds: float) -> None:
            (pauses if pauses is not None else []).append(seconds)

        values = {"model": "claude-test", "timeout": 5.0, "retries": 2, "max_tokens": 100, **facts}
        settings = ClaudeSettings(api_key=key, base_url=url or messages_api.url, **values)
        count = spent.append if spent is not None else lambda _usage: None
        chosen = guard or Guard(CircuitBreaker(time.monotonic), CircuitBreaker(time.monotonic))
        providers.append(ClaudeProvider(settings, count, chosen, sleep=sleep, chance=lambda: 1.0))
        return await providers[-1].complete(PROMPT, within=within)

    yield ask
    for provider in providers:
        await provider.close()


async def reason(asked: Any) -> str:
    """Why an ask failed."""
    with pytest.raises(ProviderError) as raised:
        await asked
    return raised.value.reason


class TestAddressing:
    """A plain call doesn't pass through the SDK, which says how it is addressed."""

    @pytest.fixture
    async def service(self) -> AsyncIterator[tuple[str, list[web.Request]]]:
        """A service that answers everything with 500, and the requests that it got."""
        requests: list[web.Request] = []

        async def refuse(request: web.Request) -> web.Response:
            requests.append(request)
            return web.Response(status=500)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", refuse)
        async with TestServer(app) as server:
            yield str(server.make_url("/")), requests

    @pytest.mark.parametrize("prefix", ["", "claude", "claude/"])
    async def test_it_is_the_sdks_own_request(
        self, ask: Any, service: tuple[str, list[web.Request]], monkeypatch: pytest.MonkeyPatch, prefix: str
    ) -> None:
        """Method, path and headers are those of ``messages.create``, with what the environment adds to them."""
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: support\nuser-agent: our-agents")
        (url, requests), key = (f"{service[0]}{prefix}", service[1]), "sk-ant-some-key"
        assert await reason(ask(key=key, url=url, retries=0)) == "server_error"
        async with anthropic.AsyncAnthropic(
            api_key=key, base_url=url, max_retries=0, http_client=anthropic.DefaultAioHttpClient()
        ) as sdk:
            with pytest.raises(anthropic.InternalServerError):
                await sdk.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "boots?"}])
        ours, theirs = requests
        assert (ours.method, ours.path_qs) == (theirs.method, theirs.path_qs)
        assert ours.headers["X-Team"] == "support"
        assert ours.headers.getall("User-Agent") == ["our-agents"]
        aside = {"content-length", "x-stainless-timeout", "x-stainless-read-timeout", "x-stainless-retry-count"}
        mine, its = (
            {name.lower(): value for name, value in request.headers.items() if name.lower() not in aside}
            for request in (ours, theirs)
        )
        assert mine == its


class TestSuccess:
    async def test_the_reply_and_what_it_took(self, ask: Any) -> None:
        """Text, model and token counts come from the answer."""
        spent: list[Usage] = []
        got = await ask(spent=spent)
        assert (got.text, got.model) == ("An answer from the model.", "claude-test")
        assert spent == [Usage("claude-test", 21, 7)]

    async def test_an_answer_of_no_use_is_paid_for(self, ask: Any, messages_api: Any) -> None:
        """What the service counted is told also where its answer is empty, refused or cached; of a failure nothing."""
        spent: list[Usage] = []
        cached = {**messages_api.message("fine"), "usage": {"input_tokens": 3, "output_tokens": 2}}
        cached["usage"] |= {"cache_creation_input_tokens": 5, "cache_read_input_tokens": 7}
        messages_api.then(
            lambda: web.json_response(messages_api.message(None)),
            lambda: web.json_response(messages_api.message("no", stop_reason="refusal")),
            lambda: messages_api.error(529),
            lambda: web.json_response(cached),
            lambda: web.json_response({**messages_api.message("free"), "usage": None}),
        )
        assert await reason(ask(spent=spent)) == "empty"
        assert await reason(ask(spent=spent)) == "refusal"
        await ask(spent=spent)
        await ask(spent=spent)
        assert spent == [Usage("claude-test", 21, 7), Usage("claude-test", 21, 7), Usage("claude-test", 3, 2, 5, 7)]

    async def test_the_request_is_what_the_api_documents(self, ask: Any, messages_api: Any) -> None:
        """Model, limit, system prompt and the conversation's turns are sent."""
        await ask(max_tokens=77)
        (sent,) = messages_api.requests
        assert sent["model"] == "claude-test"
        assert sent["max_tokens"] == 77
        assert sent["system"] == "Be kind."
        assert [one["role"] for one in sent["messages"]] == ["user", "assistant", "user"]

    async def test_text_blocks_are_joined_and_cleaned(self, ask: Any, messages_api: Any) -> None:
        """Several blocks make one reply, without what a database could not store."""
        body = messages_api.message("Hello\x00 ")
        body["content"] += [{"type": "text", "text": "there "}]
        messages_api.then(lambda: web.json_response(body))
        assert (await ask()).text == "Hello there"


class TestRetries:
    @pytest.mark.parametrize("status", [429, 500, 529])
    async def test_passing_failures_are_tried_again(self, ask: Any, messages_api: Any, status: int) -> None:
        """Rate limit, server error and overload: the next try succeeds."""
        messages_api.then(lambda: messages_api.error(status))
        assert (await ask()).text
        assert messages_api.attempts == 2

    async def test_the_sdk_does_not_retry_as_well(self, ask: Any, messages_api: Any) -> None:
        """One layer owns retries: with none allowed there is exactly one attempt."""
        messages_api.then(*[lambda: messages_api.error(500)] * 9)
        assert await reason(ask(retries=0)) == "server_error"
        assert messages_api.attempts == 1

    async def test_tries_are_bounded(self, ask: Any, messages_api: Any) -> None:
        """After the configured retries the failure is told."""
        messages_api.then(*[lambda: messages_api.error(529)] * 9)
        assert await reason(ask(retries=2)) == "overloaded"
        assert messages_api.attempts == 3

    async def test_retry_after_is_honoured(self, ask: Any, messages_api: Any) -> None:
        """The pause is what the service asks for."""
        pauses: list[float] = []
        messages_api.then(lambda: messages_api.error(429, **{"retry-after": "3"}))
        await ask(pauses=pauses)
        assert pauses == [3.0]

    async def test_a_pause_that_exceeds_the_time_is_not_made(self, ask: Any, messages_api: Any) -> None:
        """Who is told to come back in an hour gives up at once."""
        pauses: list[float] = []
        messages_api.then(lambda: messages_api.error(429, **{"retry-after": "3600"}))
        assert await reason(ask(pauses=pauses)) == "rate_limited"
        assert not pauses

    @pytest.mark.parametrize("retry_after", ["soon", "-1", "inf", "nan", "Sat, 21 Nov 2026 12:00:00 GMT"])
    async def test_odd_retry_after_headers(self, ask: Any, messages_api: Any, retry_after: str) -> None:
        """A header that holds no seconds is ignored."""
        pauses: list[float] = []
        messages_api.then(lambda: messages_api.error(429, **{"retry-after": retry_after}))
        await ask(pauses=pauses)
        assert pauses == [0.5]

    async def test_the_service_may_forbid_retries(self, ask: Any, messages_api: Any) -> None:
        """x-should-retry: false ends it."""
        messages_api.then(lambda: messages_api.error(500, **{"x-should-retry": "false"}))
        assert await reason(ask()) == "server_error"
        assert messages_api.attempts == 1

    async def test_a_dropped_connection_is_tried_again(self, ask: Any, messages_api: Any) -> None:
        """A connection that breaks mid-answer costs a try, not the reply."""
        messages_api.behaviours.append(messages_api.drop)
        assert (await ask()).text

    @given(
        retryable=st.booleans(),
        retry_after=st.none() | st.floats(0, 100),
        tries=st.integers(1, 12),
        left=st.floats(0, 60),
        chance=st.floats(0, 1),
    )
    def test_a_pause_fits(
        self, *, retryable: bool, retry_after: float | None, tries: int, left: float, chance: float
    ) -> None:
        """A pause is shorter than the time left, no shorter than asked for, and bounded where nothing was asked."""
        error = ProviderError("x", "y", retry_after=retry_after, retryable=retryable)
        pause = pause_before_retry(error, tries, left, chance)
        if pause is None:
            return
        assert retryable
        assert pause < left
        assert pause >= (retry_after or 0)
        assert pause <= max(LONGEST_PAUSE, retry_after or 0)


class TestBreakers:
    def guard(self) -> Guard:
        return Guard(CircuitBreaker(time.monotonic), CircuitBreaker(time.monotonic))

    async def test_a_service_that_is_down_is_left_alone(self, ask: Any, messages_api: Any) -> None:
        """After five failures in a row nothing is sent any more, retries included."""
        guard = self.guard()
        messages_api.then(*[lambda: messages_api.error(500)] * 99)
        reasons = [await reason(ask(guard=guard)) for _ in range(4)]
        assert reasons == ["server_error", "circuit_open", "circuit_open", "circuit_open"]
        assert messages_api.attempts == 5
        assert (guard.service.state, guard.model.state) == (State.OPEN, State.CLOSED)

    async def test_an_overloaded_model_says_nothing_of_its_service(self, ask: Any, messages_api: Any) -> None:
        """Overload opens the model's own breaker; what the request itself is to blame for opens none."""
        guard = self.guard()
        messages_api.then(*[lambda: messages_api.error(400)] * 9)
        for _ in range(9):
            assert await reason(ask(guard=guard)) == "refused"
        assert (guard.service.state, guard.model.state) == (State.CLOSED, State.CLOSED)
        messages_api.then(*[lambda: messages_api.error(529)] * 9)
        for _ in range(2):
            await reason(ask(guard=guard))
        assert (guard.service.state, guard.model.state) == (State.CLOSED, State.OPEN)

    async def test_silence_is_a_failure(self, ask: Any, messages_api: Any) -> None:
        """A service that never answers opens its breaker, whether its own limit or the budget ends the call."""
        guard = self.guard()
        messages_api.behaviours += [messages_api.hang] * 9
        for number in range(5):
            limits = {"timeout": 0.1} if number % 2 else {"within": 0.1}
            assert await reason(ask(guard=guard, retries=0, **limits)) in {"timeout", "unreachable"}
        assert guard.service.state is State.OPEN

    async def test_a_caller_that_goes_is_no_failure(self, ask: Any, messages_api: Any) -> None:
        """Calls that are cancelled say nothing of the service."""
        guard = self.guard()
        messages_api.behaviours += [messages_api.hang] * 9
        for number in range(9):
            asking = asyncio.create_task(ask(guard=guard))
            while messages_api.attempts <= number:  # noqa: ASYNC110 - a server's requests set no event
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert guard.service.state is State.CLOSED
        messages_api.behaviours.clear()
        assert (await ask(guard=guard)).text


class TestFailures:
    async def test_a_wrong_key_is_not_tried_again(self, ask: Any, messages_api: Any) -> None:
        """An authentication error is final."""
        assert await reason(ask(key="sk-wrong")) == "authentication"
        assert messages_api.attempts == 1

    @pytest.mark.parametrize(("status", "expected"), [(400, "refused"), (404, "unknown_model"), (413, "refused")])
    async def test_other_refusals_are_final(self, ask: Any, messages_api: Any, status: int, expected: str) -> None:
        """What the same request would meet again is not repeated."""
        messages_api.then(lambda: messages_api.error(status))
        assert await reason(ask()) == expected
        assert messages_api.attempts == 1

    async def test_the_time_limit_spans_everything(self, ask: Any, messages_api: Any) -> None:
        """A service that hangs costs the configured time and no more."""
        messages_api.behaviours += [messages_api.hang] * 4
        started = asyncio.get_running_loop().time()
        assert await reason(ask(timeout=0.3)) in {"timeout", "unreachable"}
        assert asyncio.get_running_loop().time() - started < 2

    async def test_an_unreachable_service(self, ask: Any) -> None:
        """Nobody listening is a provider's failure like any other."""
        assert await reason(ask(url="http://127.0.0.1:9")) == "unreachable"

    @pytest.mark.parametrize(
        "said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
    )
    async def test_a_service_that_does_not_speak_http(self, ask: Any, said: bytes) -> None:
        """Another service behind the address, or an answer that breaks off, is as good as none."""

        async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(say, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert await reason(ask(url=f"http://127.0.0.1:{port}")) == "unreachable"

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"not json",
            b"\xff\xfe",
            b"[]",
            b"null",
            b'"text"',
            b"{}",
            b'{"type": "message", "content": null}',
            b'{"type": "message", "content": "text"}',
            b'{"type": "message", "content": [1, null, "x", {"type": "text"}]}',
            b'{"type": "message", "content": [{"type": "text", "text": 5}], "usage": 3}',
            b'{"type": "message", "content": [{"type": "unheard_of", "text": "x"}]}',
        ],
    )
    @pytest.mark.parametrize("content_type", ["application/json", "text/html"])
    async def test_malformed_answers(self, ask: Any, messages_api: Any, answer: bytes, content_type: str) -> None:
        """Whatever comes back with status 200, a reply is a text or a failure that is understood."""
        messages_api.then(lambda: web.Response(body=answer, content_type=content_type))
        assert await reason(ask()) in {"malformed", "empty"}

    async def test_a_refusal_and_an_empty_answer(self, ask: Any, messages_api: Any) -> None:
        """A model that declines, or says nothing, has not answered."""
        messages_api.then(
            lambda: web.json_response(messages_api.message("I can't", stop_reason="refusal")),
            lambda: web.json_response(messages_api.message(None)),
        )
        assert await reason(ask()) == "refusal"
        assert await reason(ask()) == "empty"

    async def test_a_cut_off_answer_is_used(self, ask: Any, messages_api: Any) -> None:
        """A reply that reached the token limit is still a reply."""
        messages_api.then(lambda: web.json_response(messages_api.message("It begins", stop_reason="max_tokens")))
        assert (await ask()).text == "It begins"

    async def test_errors_do_not_quote_the_conversation(self, ask: Any, messages_api: Any) -> None:
        """A service that echoes the request in its error does not get it into ours."""
        messages_api.then(lambda: messages_api.error(400, json.dumps({"echo": "boots?"})))
        with pytest.raises(ProviderError) as raised:
            await ask()
        assert "boots" not in str(raised.value)
