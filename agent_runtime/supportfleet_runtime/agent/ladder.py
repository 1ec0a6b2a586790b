"""The fallback ladder: from the best answer to the last resort, within one budget of time.

=====  ==================================================
level  who answers
=====  ==================================================
0      the language model, with its tools
1      the language model without its tools
2      the fallback model
3      an earlier answer to the very same question
4      nobody: the agent's generic message
=====  ==================================================

Where no tools are configured, the language model without tools is the best there is: level 0. Level 1 is for what is
wrong with the tools (too many calls, a service that doesn't answer), so it is left out where the model itself failed:
asking it once more would be a second owner of its retries.

What tools found out or did for a message is told to every rung below, and never kept as an answer to others.

Each rung has the time that those above it left, and never more than its own limit, so a reply takes no longer than the
budget, whatever fails and however. The rungs don't repeat anything: a provider owns its retries.

Where somebody listens, a rung's model is heard while it speaks; where the rung fails after all, what it said is void.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import structlog

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.guard import CIRCUIT_OPEN, MODEL_FAILURES, SERVICE_FAILURES
from supportfleet_runtime.agent.prompt import with_tools, without_tools
from supportfleet_runtime.agent.providers.port import Completion, Prompt, Provider, ToolUser
from supportfleet_runtime.agent.toolbox import ToolSession
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.tracing import Field, span

log = structlog.get_logger()

BUDGET_SECONDS: Final = 30.0
LEAST_SECONDS: Final = 0.5
"""With less time left a language model isn't asked: it would be paid for and not waited for."""
CACHE_SECONDS: Final = 3600.0
CACHE_SIZE: Final = 1000

BEST, WITHOUT_TOOLS, FALLBACK_MODEL, CACHED = 0, 1, 2, 3
MODEL_IS_DOWN: Final = SERVICE_FAILURES | MODEL_FAILURES | {CIRCUIT_OPEN}
"""Reasons for which the same model need not be asked once more, without its tools."""


@dataclass(frozen=True)
class Rung:
    """One way to an answer that asks a language model."""

    level: int
    provider: Provider
    uses_tools: bool = False
    """Whether the provider is a ``ToolUser``."""


@dataclass(frozen=True)
class Found:
    """An answer, the level it is from, and whether the model had tools."""

    completion: Completion
    level: int
    tools_enabled: bool = False


class AnswerCache:
    """Answers of late to conversations' first messages: their prompt holds nothing of another customer.

    Only the very same prompt finds one. What is kept is the hash of the prompt and the answer.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, size: int = CACHE_SIZE, seconds: float = CACHE_SECONDS
    ) -> None:
        self._clock = clock
        self._size = size
        self._seconds = seconds
        self._answers: OrderedDict[bytes, tuple[float, Completion]] = OrderedDict()

    def keep(self, prompt: Prompt, completion: Completion) -> None:
        """Remember an answer, if it is one that may be."""
        if len(prompt.utterances) != 1:
            return
        key = _key(prompt)
        self._answers[key] = (self._clock(), completion)
        self._answers.move_to_end(key)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def find(self, prompt: Prompt) -> Completion | None:
        """The answer to this very prompt, if it is not too old."""
        at, completion = self._answers.get(_key(prompt), (0.0, None))
        return completion if completion and self._clock() - at < self._seconds else None


class Ladder:
    """Asks one rung after the other."""

    def __init__(
        self,
        rungs: Sequence[Rung],
        cache: AnswerCache | None = None,
        *,
        budget: float = BUDGET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rungs = rungs
        self._cache = cache
        self._budget = budget
        self._clock = clock

    async def ask(
        self, prompt: Prompt, task_id: str, tools: ToolSession | None = None, draft: Draft | None = None
    ) -> Found | None:
        """The best answer to be had; none where only the generic message is left."""
        deadline = self._clock() + self._budget
        has_tools = tools is not None and bool(tools.specs)
        failure = ""
        for rung in self._rungs:
            if _is_left_out(rung, has_tools=has_tools, failure=failure):
                continue
            left = deadline - self._clock()
            if left < LEAST_SECONDS:
                log.warning("budget_spent", task_id=task_id, level=rung.level)
                break
            with span("rung", {Field.LEVEL: rung.level}) as standing:
                try:
                    found = await _ask_rung(rung, prompt, tools if has_tools else None, left, draft)
                except ProviderError as error:
                    failure = error.reason
                    if draft:
                        draft.void()
                    standing.fail(error.reason)
                    log.warning("provider_failed", task_id=task_id, level=rung.level, reason=error.reason)
                    continue
            if self._cache and not (tools and tools.results):
                self._cache.keep(prompt, found.completion)
            return found
        if tools and tools.results:  # an earlier answer knows nothing of them
            return None
        with span("rung", {Field.LEVEL: CACHED}) as standing:
            cached = self._cache.find(prompt) if self._cache else None
            standing.note(Field.FOUND, cached is not None)
        return Found(cached, CACHED) if cached else None

    async def close(self) -> None:
        """Let go of connections."""
        for provider in {id(rung.provider): rung.provider for rung in self._rungs}.values():
            await provider.close()


def _is_left_out(rung: Rung, *, has_tools: bool, failure: str) -> bool:
    """Whether a rung has nothing to add to those above it."""
    return rung.level == WITHOUT_TOOLS and (not has_tools or failure in MODEL_IS_DOWN)


async def _ask_rung(rung: Rung, prompt: Prompt, tools: ToolSession | None, left: float, draft: Draft | None) -> Found:
    if tools is None or not rung.uses_tools:
        told = prompt if tools is None else without_tools(prompt, tools.results)
        return Found(await rung.provider.complete(told, within=left, draft=draft), rung.level)
    if not tools.available:
        raise ProviderError("tools_unavailable", "their circuit breaker is open")
    provider = cast("ToolUser", rung.provider)
    told = with_tools(prompt, tools.left, tools.results)
    return Found(
        await provider.complete_with_tools(told, tools, within=left, draft=draft), rung.level, tools_enabled=True
    )


def _key(prompt: Prompt) -> bytes:
    parts = (prompt.system, *(f"{one.role}:{one.text}" for one in prompt.utterances))
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()
