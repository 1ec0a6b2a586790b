"""The fallback ladder: the best answer to be had, within its budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.ladder import (
    BUDGET_SECONDS,
    CACHE_SECONDS,
    FALLBACK_MODEL,
    LEAST_SECONDS,
    AnswerCache,
    Found,
    Ladder,
    Rung,
)
from supportfleet_runtime.agent.providers import Completion, Prompt, Utterance
from supportfleet_runtime.errors import ProviderError

QUESTION = Prompt("Be kind.", (Utterance("user", "boots?"),))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """A language model that takes its time, and answers or fails."""

    name: str
    clock: Clock
    seconds: float = 1.0
    works: bool = True
    given: list[float] = field(default_factory=list)
    closed: bool = False

    async def complete(self, prompt: Prompt, *, within: float, draft: Any = None) -> Completion:
        self.given.append(within)
        if draft:
            assert draft.text == "", "what another said is void by now"
            draft.tell(f"From {self.name}")
        self.clock.now += min(self.seconds, within)
        if not self.works or self.seconds > within:
            raise ProviderError("overloaded", "HTTP 529")
        return Completion(f"From {self.name}.", self.name)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_the_rungs_in_order(clock: Clock) -> None:
    """The first that answers is the answer; the next are not asked; the level says which it was."""
    first, second = Model("first", clock), Model("second", clock)
    ladder = Ladder([Rung(0, first), Rung(2, second)], AnswerCache(clock), clock=clock)
    assert await ladder.ask(QUESTION, "t") == Found(Completion("From first.", "first"), 0)
    assert not second.given
    first.works = False
    assert await ladder.ask(QUESTION, "t") == Found(Completion("From second.", "second"), 2)
    second.works = False
    assert await ladder.ask(QUESTION, "t") == Found(Completion("From second.", "second"), 3)
    assert await ladder.ask(Prompt("Be brief.", QUESTION.utterances), "t") is None
    await ladder.close()
    assert first.closed
    assert second.closed


async def test_what_a_rung_said_before_it_failed(clock: Clock) -> None:
    """It is void before the next rung speaks, and where nobody is left; what the one that answers said stays."""
    told: list[str] = []
    draft = Draft("task_1", 1, lambda: told.append(draft.text))
    first, second = Model("first", clock, works=False), Model("second", clock)
    ladder = Ladder([Rung(0, first), Rung(2, second)], clock=clock)
    await ladder.ask(QUESTION, "t", draft=draft)
    assert told == ["From first", "", "From second"]
    draft.void()
    second.works = False
    await ladder.ask(QUESTION, "t", draft=draft)
    assert told[3:] == ["", "From first", "", "From second", ""]


async def test_without_a_cache(clock: Clock) -> None:
    """Where earlier answers may not stand in, nothing does."""
    model = Model("m", clock)
    ladder = Ladder([Rung(0, model)], clock=clock)
    await ladder.ask(QUESTION, "t")
    model.works = False
    assert await ladder.ask(QUESTION, "t") is None


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1, max_size=5))
async def test_the_budget_holds(models: list[tuple[float, bool]]) -> None:
    """Whatever each rung takes, all of them together take no longer than the budget, and none is asked in vain."""
    clock = Clock()
    rungs = [Rung(FALLBACK_MODEL, Model(str(one), clock, *behaviour)) for one, behaviour in enumerate(models)]
    found = await Ladder(rungs, clock=clock).ask(QUESTION, "t")
    assert clock.now <= BUDGET_SECONDS + 1e-6
    assert all(within >= LEAST_SECONDS for rung in rungs for within in rung.provider.given)
    able = [level for level, (seconds, works) in enumerate(models) if works and seconds < LEAST_SECONDS]
    if found is None and able:
        assert clock.now > BUDGET_SECONDS - LEAST_SECONDS - 1e-6, "there was no time left to ask it"


class TestCache:
    def test_only_the_very_same_prompt(self, clock: Clock) -> None:
        """Another system prompt, another text or an earlier turn is another question."""
        cache = AnswerCache(clock)
        cache.keep(QUESTION, Completion("a", "m"))
        assert cache.find(QUESTION)
        for other in (
            Prompt("Be kind", QUESTION.utterances),
            Prompt("Be kind.", (Utterance("user", "Boots?"),)),
            Prompt("Be kind.", (Utterance("user", "hi"), Utterance("assistant", "hello"), *QUESTION.utterances)),
            Prompt("Be kind.user:", (Utterance("user", "boots?"[1:]),)),
        ):
            assert cache.find(other) is None

    def test_no_conversation_is_remembered(self, clock: Clock) -> None:
        """What was answered in view of earlier turns is nobody else's answer."""
        cache = AnswerCache(clock)
        prompt = Prompt("", (Utterance("user", "hi"), Utterance("assistant", "hello"), Utterance("user", "boots?")))
        cache.keep(prompt, Completion("a", "m"))
        assert cache.find(prompt) is None

    def test_it_forgets(self, clock: Clock) -> None:
        """Answers grow old, and the oldest make room."""
        cache = AnswerCache(clock, size=2)
        prompts = [Prompt("", (Utterance("user", str(number)),)) for number in range(3)]
        for prompt in prompts:
            cache.keep(prompt, Completion("a", "m"))
        assert [cache.find(prompt) is not None for prompt in prompts] == [False, True, True]
        clock.now += CACHE_SECONDS
        assert cache.find(prompts[2]) is None


class TestTheWholeAgent:
    def environ(self, api: Any, **more: str) -> dict[str, str]:
        return {"ANTHROPIC_API_KEY": api.key, "ANTHROPIC_BASE_URL": api.url, "CLAUDE_MODEL": "claude-best", **more}

    async def test_each_level(self, start_agent: Any, messages_api: Any) -> None:
        """The model, the fallback model, an earlier answer, the generic message: each says which it is."""
        agent = await start_agent(
            **self.environ(messages_api, FALLBACK_MODEL="claude-spare", CLAUDE_RETRIES="0", CLAUDE_TIMEOUT="2")
        )
        overloaded = [lambda: messages_api.error(529)] * 9
        seen = []
        for failures in (0, 1, 2, 2):
            messages_api.behaviours.clear()
            messages_api.then(*overloaded[:failures])
            text = "Do your boots run small?" if len(seen) < 3 else "Do your socks run small?"
            got = await agent.say(text)
            seen.append((got["fallback_level"], got["model"], got["source"]))
        assert seen == [
            (0, "claude-best", "model"),
            (2, "claude-spare", "model"),
            (3, "claude-spare", "model"),
            (4, None, "fallback"),
        ]
        for level in (0, 2, 3, 4):
            assert await agent.metric(f'agent_fallback_total{{level="{level}"}}') == 1

    async def test_it_can_be_switched_off(self, start_agent: Any, messages_api: Any) -> None:
        """With FALLBACK_ENABLED=false nothing stands in for the model."""
        agent = await start_agent(
            **self.environ(messages_api, FALLBACK_MODEL="claude-spare", FALLBACK_ENABLED="false", CLAUDE_RETRIES="0")
        )
        await agent.say("Do your boots run small?")
        messages_api.then(lambda: messages_api.error(529))
        assert (await agent.say("Do your boots run small?"))["fallback_level"] == 4

    async def test_a_service_that_is_down_sees_few_calls(self, start_agent: Any, messages_api: Any) -> None:
        """Retries and fallbacks together: the service sees at most 1.1 calls for each message."""
        agent = await start_agent(**self.environ(messages_api, FALLBACK_MODEL="claude-spare"))
        messages_api.then(*[lambda: messages_api.error(500)] * 999)
        offered = 100
        got = await asyncio.gather(*(agent.say(f"Do your boots run small? {number}") for number in range(offered)))
        assert {one["fallback_level"] for one in got} == {4}
        assert messages_api.attempts <= 1.1 * offered
        assert await agent.metric('agent_breaker_state{dependency="messages-api"}') == 2
        before = messages_api.attempts
        await agent.say("Do your boots run small?")
        assert messages_api.attempts == before
