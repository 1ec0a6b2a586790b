"""The fallback ladder: from the best answer to the last resort, within one budget of time.

=====  ==================================================
level  who answers
=====  ==================================================
0      the language model
2      the fallback model
3      an earlier answer to the very same question
4      nobody: the agent's generic message
=====  ==================================================

(1 is the language model without its tools; an agent whose model has none never stands there.)

Each rung has the time that those above it left, and never more than its own limit, so a reply takes no longer than the
budget, whatever fails and however. The rungs don't repeat anything: a provider owns its retries.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from supportfleet_runtime.agent.providers.port import Completion, Prompt, Provider
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.tracing import Field, span

log = structlog.get_logger()

BUDGET_SECONDS: Final = 30.0
LEAST_SECONDS: Final = 0.5
"""With less time left a language model isn't asked: it would be paid for and not waited for."""
CACHE_SECONDS: Final = 3600.0
CACHE_SIZE: Final = 1000

BEST, FALLBACK_MODEL, CACHED = 0, 2, 3


@dataclass(frozen=True)
class Rung:
    """One way to an answer that asks a language model."""

    level: int
    provider: Provider


@dataclass(frozen=True)
class Found:
    """An answer, and the level it is from."""

    completion: Completion
    level: int


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

    async def ask(self, prompt: Prompt, task_id: str) -> Found | None:
        """The best answer to be had; none where only the generic message is left."""
        deadline = self._clock() + self._budget
        for rung in self._rungs:
            left = deadline - self._clock()
            if left < LEAST_SECONDS:
                log.warning("budget_spent", task_id=task_id, level=rung.level)
                break
            with span("rung", {Field.LEVEL: rung.level}) as standing:
                try:
                    completion = await rung.provider.complete(prompt, within=left)
                except ProviderError as error:
                    standing.fail(error.reason)
                    log.warning("provider_failed", task_id=task_id, level=rung.level, reason=error.reason)
                    continue
            if self._cache:
                self._cache.keep(prompt, completion)
            return Found(completion, rung.level)
        with span("rung", {Field.LEVEL: CACHED}) as standing:
            cached = self._cache.find(prompt) if self._cache else None
            standing.note(Field.FOUND, cached is not None)
        return Found(cached, CACHED) if cached else None

    async def close(self) -> None:
        """Let go of connections."""
        for rung in self._rungs:
            await rung.provider.close()


def _key(prompt: Prompt) -> bytes:
    parts = (prompt.system, *(f"{one.role}:{one.text}" for one in prompt.utterances))
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()
