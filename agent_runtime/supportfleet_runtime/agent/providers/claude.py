"""Claude, through the ``anthropic`` SDK.

This module owns the retries (the SDK does none) and one time limit that spans them all: another try is made
only where the service says that it may help, after the pause it asks for, and only if the limit leaves room and the
breakers let it: a service that is down is not asked again and again.

Where somebody listens (``draft``) the call streams. It is the same call for all that: it fails as any other, in the
middle as at the beginning, is tried again as any other, and has the same time; only what was told by then is void.

The SDK takes a second to import and 20 MB, so only an agent with a key imports this module.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import anthropic
import orjson
import structlog
from anthropic.types.assistant_message_param import AssistantMessageParam
from anthropic.types.message_param import MessageParam
from anthropic.types.tool_param import ToolParam
from anthropic.types.user_message_param import UserMessageParam

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.guard import Guard
from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.agent.providers.messages_api import UNREACHABLE, Answer, MessagesApi, Question, answer_of
from supportfleet_runtime.agent.providers.port import Completion, Prompt, Utterance
from supportfleet_runtime.agent.providers.streamed import StreamedAnswer
from supportfleet_runtime.agent.providers.tool_use import asked_again, tool_param, tool_uses
from supportfleet_runtime.agent.toolbox import ToolSession
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.tracing import Field, Kind, in_hand, span

log = structlog.get_logger()

RETRYABLE_STATUSES: Final = frozenset({408, 409, 429})
STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
"""The statuses of the API's errors, as it documents them."""
EVENTS: Final = "text/event-stream"
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
LEAST_TOOL_SECONDS: Final = 1.0
"""With less time left no tool is called: it might be cut off in the middle."""


@dataclass(frozen=True)
class ClaudeSettings:
    """Which model, where, and how long it may take. ``timeout`` spans all tries."""

    api_key: str
    base_url: str
    model: str
    timeout: float
    retries: int
    max_tokens: int


def pause_before_retry(error: ProviderError, tries: int, left: float, chance: float) -> float | None:
    """How long to wait before the next try, or ``None`` where there should be none. Pure.

    ``chance`` (0 to 1) spreads retries out, so that agents that failed together don't come back together.
    """
    if not error.retryable:
        return None
    backoff = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * (0.5 + chance / 2)
    pause = max(backoff, error.retry_after or 0.0)
    return pause if pause < left else None


class ClaudeProvider:
    """A language model that really is one. ``spent`` is told what each call took, also where its answer is no use."""

    def __init__(
        self,
        settings: ClaudeSettings,
        spent: Callable[[Usage], None],
        guard: Guard,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._spent = spent
        self._guard = guard
        self._sleep = sleep
        self._chance = chance
        self._api = MessagesApi(settings.api_key, settings.base_url, settings.timeout)

    async def complete(self, prompt: Prompt, *, within: float, draft: Draft | None = None) -> Completion:
        """Ask, and ask again where that may help, until the time is up."""
        question = self._question(prompt.system, _messages(prompt))
        return _completion(await self._reply(question, self._deadline(within), draft))

    async def complete_with_tools(
        self, prompt: Prompt, tools: ToolSession, *, within: float, draft: Draft | None = None
    ) -> Completion:
        """Ask, carry out the calls that the model asks for, tell it what came of them, until it answers.

        Each round makes a call of the few there are, so there are no more rounds than those. The time limit spans all.
        """
        loop, deadline = asyncio.get_running_loop(), self._deadline(within)
        messages = _messages(prompt)
        offered = [tool_param(spec) for spec in tools.specs]
        while True:
            message = await self._reply(self._question(prompt.system, messages, offered), deadline, draft)
            uses = tool_uses(message)
            if not uses:
                return _completion(message)
            if tools.is_spent:
                raise ProviderError("tool_limit", "the model asks for more calls of tools than it may have")
            results = []
            for use in uses:
                left = deadline - loop.time()
                if left < LEAST_TOOL_SECONDS:
                    raise ProviderError("tools_slow", "there is no time left for a tool's call")
                results.append(await tools.call(use.name, use.arguments, within=left))
            messages += asked_again(message, uses, results)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    def _deadline(self, within: float) -> float:
        return asyncio.get_running_loop().time() + min(within, self._settings.timeout)

    def _question(self, system: str, messages: Sequence[MessageParam], offered: Sequence[ToolParam] = ()) -> Question:
        return Question(self._settings.model, self._settings.max_tokens, system, messages, offered)

    async def _reply(self, question: Question, deadline: float, draft: Draft | None) -> Answer:
        """What the service says, after as many tries as it takes and the deadline allows."""
        loop = asyncio.get_running_loop()
        limit = deadline - loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                for tries in range(1, self._settings.retries + 2):
                    try:
                        return await self._guarded(question, deadline, draft)
                    except ProviderError as error:
                        pause = pause_before_retry(error, tries, deadline - loop.time(), self._chance())
                        if pause is None or tries > self._settings.retries:
                            raise
                        log.info("provider_retry", reason=error.reason, tries=tries, pause=round(pause, 3))
                        await self._sleep(pause)
        except TimeoutError:
            raise ProviderError("timeout", f"no reply within {limit:.3g} s") from None
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    async def _guarded(self, question: Question, deadline: float, draft: Draft | None) -> Answer:
        """Ask once, if there is leave to, and tell how it went."""
        leave = self._guard.admit()
        try:
            with span("model call", {Field.MODEL: self._settings.model}, kind=Kind.CLIENT):
                message = await self._ask(question, draft)
        except ProviderError as error:
            leave.failed(error.reason)
            raise
        except BaseException:  # cancelled: by the deadline, which is the model's failure, or by who no longer waits
            if asyncio.get_running_loop().time() >= deadline:
                leave.failed("timeout")
            else:
                leave.dropped()
            raise
        leave.answered()
        return message

    async def _ask(self, question: Question, draft: Draft | None) -> Answer:
        try:
            if draft:
                message = await self._listen(question, draft)
            else:
                message = await self._api.create(question)
        except anthropic.APIStatusError as error:
            raise _of_status(error) from error
        except UNREACHABLE as error:
            raise ProviderError("unreachable", type(error).__name__, retryable=True) from error
        except (anthropic.AnthropicError, ValueError) as error:  # ValueError: no JSON, or no UTF-8
            raise ProviderError("malformed", type(error).__name__) from error
        self._count(message.usage)
        if message.content is None:
            raise ProviderError("malformed", "the answer is no message")
        return message

    async def _listen(self, question: Question, draft: Draft) -> Answer:
        """Ask for a stream, and tell what it says while it comes. What it took is counted also where it breaks off."""
        coming = StreamedAnswer()
        try:
            async with await self._api.stream(question) as events:
                if EVENTS not in events.response.headers.get("content-type", ""):  # it answers all at once
                    return answer_of(orjson.loads(await events.response.aread()))
                await _follow(events, coming, draft)
            return coming.whole()
        except BaseException:
            draft.void()
            self._count(coming.so_far.usage)
            raise

    def _count(self, usage: Usage | None) -> None:
        """Tell what a call took, as far as the service says so."""
        if usage:
            self._spent(usage)
            in_hand().note(Field.TOKENS_READ, usage.read)
            in_hand().note(Field.TOKENS_WRITTEN, usage.output_tokens)


async def _follow(events: AsyncIterator[object], coming: StreamedAnswer, draft: Draft) -> None:
    """Read a stream to its end, so that its connection can be used again; it may as well break there."""
    try:
        async for event in events:
            coming.take(event)
            if text := coming.so_far.text:
                draft.tell(text)
    except UNREACHABLE:
        if not coming.is_whole:
            raise


def _messages(prompt: Prompt) -> list[MessageParam]:
    return [_param(said) for said in prompt.utterances]


def _param(said: Utterance) -> UserMessageParam | AssistantMessageParam:
    if said.role == "user":
        return UserMessageParam(role="user", content=said.text)
    return AssistantMessageParam(role="assistant", content=said.text)


def _of_status(error: anthropic.APIStatusError) -> ProviderError:
    """What a status means; that of an error in mid-stream, whose own was 200, is the one it would have had else."""
    status = error.status_code
    if status < HTTPStatus.BAD_REQUEST:
        status = STATUSES.get(str(error.type), HTTPStatus.INTERNAL_SERVER_ERROR)
    reasons = {
        401: "authentication",
        403: "authentication",
        404: "unknown_model",
        429: "rate_limited",
        529: "overloaded",
    }
    should = error.response.headers.get("x-should-retry")
    retryable = should == "true" or (should != "false" and (status in RETRYABLE_STATUSES or status >= 500))  # noqa: PLR2004
    return ProviderError(
        reasons.get(status, "server_error" if status >= 500 else "refused"),  # noqa: PLR2004 - HTTP's classes
        f"HTTP {status}",
        retry_after=_seconds(error.response.headers.get("retry-after")),
        retryable=retryable,
    )


def _seconds(retry_after: str | None) -> float | None:
    try:
        seconds = float(retry_after) if retry_after is not None else None
    except ValueError:  # a date: the API sends seconds, and our own pause will do
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None


def _completion(message: Answer) -> Completion:
    """The reply's text."""
    if message.stop_reason == "refusal":
        raise ProviderError("refusal", "the model declined to answer")
    if not (text := message.text):
        raise ProviderError("empty", "the answer holds no text")
    return Completion(text, message.model)
