"""Claude, through the ``anthropic`` SDK.

This module owns the retries (the SDK's are switched off) and one time limit that spans them all: another try is made
only where the service says that it may help, after the pause it asks for, and only if the limit leaves room and the
breakers let it: a service that is down is not asked again and again.
The SDK takes a second to import and 20 MB, so only an agent with a key imports this module.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anthropic
import structlog
from anthropic.types.assistant_message_param import AssistantMessageParam
from anthropic.types.message_param import MessageParam
from anthropic.types.tool_param import ToolParam
from anthropic.types.user_message_param import UserMessageParam

from supportfleet_runtime.agent.guard import Guard
from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.agent.providers.messages_api import Answer, create
from supportfleet_runtime.agent.providers.port import Completion, Prompt, Utterance
from supportfleet_runtime.agent.providers.tool_use import asked_again, tool_param, tool_uses
from supportfleet_runtime.agent.toolbox import ToolSession
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.tracing import Field, Kind, in_hand, span

log = structlog.get_logger()

RETRYABLE_STATUSES: Final = frozenset({408, 409, 429})
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
        self._client = anthropic.AsyncAnthropic(
            api_key=settings.api_key,
            base_url=settings.base_url,
            max_retries=0,
            timeout=settings.timeout,
            # aiohttp, which the runtime has loaded anyway, takes half the time for a call that the SDK's default takes.
            http_client=anthropic.DefaultAioHttpClient(),
            # The call has a span of ours; the SDK's would cost time, and an environment variable would put what
            # customers write into it.
            open_telemetry={"traces": False, "propagation": False},
        )

    async def complete(self, prompt: Prompt, *, within: float) -> Completion:
        """Ask, and ask again where that may help, until the time is up."""
        return _completion(await self._reply(prompt.system, _messages(prompt), (), self._deadline(within)))

    async def complete_with_tools(self, prompt: Prompt, tools: ToolSession, *, within: float) -> Completion:
        """Ask, carry out the calls that the model asks for, tell it what came of them, until it answers.

        Each round makes a call of the few there are, so there are no more rounds than those. The time limit spans all.
        """
        loop, deadline = asyncio.get_running_loop(), self._deadline(within)
        messages = _messages(prompt)
        offered = [tool_param(spec) for spec in tools.specs]
        while True:
            message = await self._reply(prompt.system, messages, offered, deadline)
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
        await self._client.close()

    def _deadline(self, within: float) -> float:
        return asyncio.get_running_loop().time() + min(within, self._settings.timeout)

    async def _reply(
        self, system: str, messages: Sequence[MessageParam], offered: Sequence[ToolParam], deadline: float
    ) -> Answer:
        """What the service says, after as many tries as it takes and the deadline allows."""
        loop = asyncio.get_running_loop()
        limit = deadline - loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                for tries in range(1, self._settings.retries + 2):
                    try:
                        return await self._guarded(system, messages, offered, deadline)
                    except ProviderError as error:
                        pause = pause_before_retry(error, tries, deadline - loop.time(), self._chance())
                        if pause is None or tries > self._settings.retries:
                            raise
                        log.info("provider_retry", reason=error.reason, tries=tries, pause=round(pause, 3))
                        await self._sleep(pause)
        except TimeoutError:
            raise ProviderError("timeout", f"no reply within {limit:.3g} s") from None
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    async def _guarded(
        self, system: str, messages: Sequence[MessageParam], offered: Sequence[ToolParam], deadline: float
    ) -> Answer:
        """Ask once, if there is leave to, and tell how it went."""
        leave = self._guard.admit()
        try:
            with span("model call", {Field.MODEL: self._settings.model}, kind=Kind.CLIENT):
                message = await self._ask(system, messages, offered)
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

    async def _ask(self, system: str, messages: Sequence[MessageParam], offered: Sequence[ToolParam]) -> Answer:
        try:
            message = await create(
                self._client,
                model=self._settings.model,
                max_tokens=self._settings.max_tokens,
                system=system,
                messages=messages,
                tools=offered,
            )
        except anthropic.APIStatusError as error:
            raise _of_status(error) from error
        except anthropic.APIConnectionError as error:
            raise ProviderError("unreachable", type(error).__name__, retryable=True) from error
        except (anthropic.AnthropicError, ValueError) as error:  # ValueError: no JSON, or no UTF-8
            raise ProviderError("malformed", type(error).__name__) from error
        if usage := message.usage:
            self._spent(usage)
            in_hand().note(Field.TOKENS_READ, usage.read)
            in_hand().note(Field.TOKENS_WRITTEN, usage.output_tokens)
        if message.content is None:
            raise ProviderError("malformed", "the answer is no message")
        return message


def _messages(prompt: Prompt) -> list[MessageParam]:
    return [_param(said) for said in prompt.utterances]


def _param(said: Utterance) -> UserMessageParam | AssistantMessageParam:
    if said.role == "user":
        return UserMessageParam(role="user", content=said.text)
    return AssistantMessageParam(role="assistant", content=said.text)


def _of_status(error: anthropic.APIStatusError) -> ProviderError:
    status = error.status_code
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
    texts = [block.get("text") for block in message.blocks("text")]
    text = "".join(text for text in texts if isinstance(text, str)).replace("\x00", "").strip()
    if not text:
        raise ProviderError("empty", "the answer holds no text")
    return Completion(text, message.model)
