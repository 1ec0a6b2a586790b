from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.classifier import KeywordClassifier, KeywordInfo, KeywordPrediction
from supportfleet_runtime.agent.ladder import Ladder, Rung
from supportfleet_runtime.agent.model import IntentModel, ModelLoader
from supportfleet_runtime.agent.prompt import build_prompt
from supportfleet_runtime.agent.providers import Completion, Prompt
from supportfleet_runtime.agent.providers.scripted import ScriptedProvider
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.turn import Exchange, Turn
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.metrics import Metrics

DIGEST = "sha256:" + "a" * 64


SAID = Completion("From the model.", "m-1")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Model:
    """A language model that says what it is told to, and remembers what it was shown."""

    def __init__(self, outcome: Completion | ProviderError = SAID) -> None:
        self.outcome = outcome
        self.prompts: list[Prompt] = []

    async def complete(self, prompt: Prompt, *, within: float, draft: Any = None) -> Completion:
        self.prompts.append(prompt)
        if isinstance(self.outcome, ProviderError):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        pass


class Sure:
    """A classifier that always says the same."""

    def __init__(self, candidate: str, confidence: float, threshold: float = 0.5) -> None:
        self.info = replace(KeywordClassifier().info, threshold=threshold)
        self._said = KeywordPrediction(candidate, confidence)

    def classify(self, text: str) -> KeywordPrediction:
        return self._said


@pytest.fixture
def make_turn(clock: Any) -> Any:
    def make(text: str, **facts: Any) -> Turn:
        return Turn("task_1", "conv_1", "cust-1001", 1, text, clock(), **facts)

    return make


@pytest.fixture
def make_agent(clock: Any) -> Any:
    def make(model: Any = None, classifier: Any = None, **settings: Any) -> Agent:
        chosen = classifier or KeywordClassifier()
        configured = AgentSettings.model_validate(settings)
        return Agent(lambda: configured, lambda: chosen, Ladder([Rung(0, model or Model())]), Metrics(), clock)

    return make


class TestAnswering:
    async def test_what_rules_know_no_model_is_asked(self, make_agent: Any, make_turn: Any) -> None:
        """A known intent is answered from the order book, without a language model."""
        model = Model()
        answer = await make_agent(model).answer(make_turn("Where is my order A-1001?"))
        assert (answer.source, answer.intent, answer.model) == ("rules", "order_status", None)
        assert "DHL" in answer.text
        assert not model.prompts

    async def test_everything_else_goes_to_the_model(self, make_agent: Any, make_turn: Any) -> None:
        """An unknown intent is answered by the model, which is named."""
        answer = await make_agent().answer(make_turn("Do your boots run small?"))
        assert (answer.source, answer.model, answer.fallback_level) == ("model", "m-1", 0)
        assert answer.text == "From the model."

    async def test_low_confidence_goes_to_the_model(self, make_agent: Any, make_turn: Any) -> None:
        """Below the model's threshold the rules stay silent; the configured threshold overrides it."""
        classifier = Sure("refund", 0.55, threshold=0.6)
        assert (await make_agent(classifier=classifier).answer(make_turn("A-1003"))).source == "model"
        eager = make_agent(classifier=classifier, confidenceThreshold=0.5)
        assert (await eager.answer(make_turn("A-1003"))).source == "rules"

    async def test_rules_can_be_switched_off(self, make_agent: Any, make_turn: Any) -> None:
        """An intent that is not among the configured ones is left to the model."""
        agent = make_agent(rules={"intents": ["human"]})
        assert (await agent.answer(make_turn("Where is my order A-1001?"))).source == "model"
        assert (await agent.answer(make_turn("a human please"))).source == "rules"

    async def test_a_failing_model_gives_the_generic_reply(self, make_agent: Any, make_turn: Any) -> None:
        """Whatever is wrong with the model, the customer is answered, at the ladder's last rung."""
        agent = make_agent(Model(ProviderError("overloaded", "HTTP 529")), fallbackReply="Please come back later.")
        answer = await agent.answer(make_turn("Do your boots run small?"))
        assert (answer.text, answer.source, answer.fallback_level) == ("Please come back later.", "fallback", 4)
        assert answer.model is None

    async def test_a_question_is_continued(self, make_agent: Any, make_turn: Any) -> None:
        """The question "where is my order?" asks for the number, and the number alone answers the question."""
        agent = make_agent()
        first = await agent.answer(make_turn("where is my order?"))
        assert first.pending == Pending("order_status")
        second = await agent.answer(make_turn("A-1001", pending=first.pending))
        assert second.intent == "order_status"
        assert second.pending is None
        assert "DHL" in second.text

    async def test_a_question_that_is_never_answered_reaches_the_model(self, make_agent: Any, make_turn: Any) -> None:
        """After two vain questions the model takes over, with the conversation so far."""
        model = Model()
        agent = make_agent(model)
        pending = (await agent.answer(make_turn("where is my order?"))).pending
        pending = (await agent.answer(make_turn("no idea", pending=pending))).pending
        answer = await agent.answer(make_turn("no idea either", pending=pending))
        assert answer.source == "model"
        assert answer.pending is None

    async def test_the_scripted_provider_says_what_it_is(self, make_agent: Any, make_turn: Any) -> None:
        """Without a key the reply names itself scripted, in its text and in its model."""
        answer = await make_agent(ScriptedProvider()).answer(make_turn("Do your boots run small?"))
        assert answer.model == "scripted"
        assert "scripted" in answer.text

    @given(text=st.text(), pending=st.none() | st.builds(Pending, st.sampled_from(["refund", "order_status"])))
    async def test_every_text_gets_an_answer(self, text: str, pending: Pending | None) -> None:
        """No text, in no state of a conversation, leaves a customer without a reply."""
        classifier = KeywordClassifier()
        agent = Agent(AgentSettings, lambda: classifier, Ladder([Rung(0, ScriptedProvider())]), Metrics(), lambda: NOON)
        answer = await agent.answer(Turn("t", "c", "cust-1001", 1, text, NOON, pending=pending))
        assert answer.text.strip()


class TestPrompt:
    def build(self, make_turn: Any, history: tuple[Exchange, ...] = (), **limits: int) -> Prompt:
        settings = AgentSettings.model_validate({"systemPrompt": "Be kind.", "company": "Acme", "history": limits})
        return build_prompt(make_turn("now", history=history), settings)

    def test_it_holds_the_prompt_the_history_and_the_message(self, make_turn: Any) -> None:
        """The model sees who it is, what was said, and what is asked, in this order."""
        prompt = self.build(make_turn, (Exchange("one", "1"), Exchange("two", None), Exchange("three", "3")))
        assert prompt.system.startswith("Be kind.")
        assert "Acme" in prompt.system
        said = [(one.role, one.text) for one in prompt.utterances]
        assert said == [
            ("user", "one"),
            ("assistant", "1"),
            ("user", "two"),
            ("user", "three"),
            ("assistant", "3"),
            ("user", "now"),
        ]

    def test_no_history_at_all(self, make_turn: Any) -> None:
        """A limit of nought shows the message alone."""
        assert len(self.build(make_turn, (Exchange("one", "1"),), maxTurns=0).utterances) == 1

    @given(
        exchanges=st.lists(st.builds(Exchange, st.text(max_size=50), st.none() | st.text(max_size=50)), max_size=12),
        turns=st.integers(0, 8),
        characters=st.integers(0, 200),
    )
    def test_the_limits_hold(self, exchanges: list[Exchange], turns: int, characters: int) -> None:
        """Never more turns or characters than allowed; what is shown is the latest, in order; the customer begins."""
        settings = AgentSettings.model_validate({"history": {"maxTurns": turns, "maxCharacters": characters}})
        turn = Turn("t", "c", "cust", 1, "now", NOON, history=tuple(exchanges))
        *history, last = build_prompt(turn, settings).utterances
        assert last.text == "now"
        assert sum(len(one.text) for one in history) <= characters
        asked = [one.text for one in history if one.role == "user"]
        assert len(asked) <= turns
        assert asked == [one.text for one in exchanges][len(exchanges) - len(asked) :]
        assert not history or history[0].role == "user"


class TestModel:
    """Which intent model is used."""

    async def loaded(self, folder: Path, digest: str | None, load: Any, problems: list[str | None]) -> IntentModel:
        """The model once it is loaded; ``problems`` are what kept it from that."""

        async def sleep(_seconds: float) -> None:
            problems.append(model.problem)
            if len(problems) == 1:
                (folder / "versions" / DIGEST.removeprefix("sha256:")).mkdir(parents=True, exist_ok=True)

        model = IntentModel(Metrics())
        await ModelLoader(model, folder, digest, load=load, sleep=sleep).run()
        return model

    async def test_keywords_where_nothing_is_configured(self, tmp_path: Path) -> None:
        """Without digest and without files the built-in keywords are used."""
        model = await self.loaded(tmp_path, None, None, [])
        assert model.classifier.info.version == "builtin"
        assert model.problem is None

    async def test_the_current_model_where_there_is_one(self, tmp_path: Path) -> None:
        """Without a digest, what 'current' points to is loaded."""
        (tmp_path / "current").mkdir()
        loaded: list[Path] = []
        await self.loaded(tmp_path, None, lambda path: loaded.append(path) or KeywordClassifier(), [])
        assert loaded == [tmp_path / "current"]

    async def test_a_demanded_model_is_waited_for(self, tmp_path: Path) -> None:
        """With a digest there is no model until that one is there, and the problem says what to do."""
        told: list[str | None] = []
        model = await self.loaded(tmp_path, DIGEST, lambda _path: _with_digest(DIGEST), told)
        assert model.classifier.info.digest == DIGEST
        assert told
        assert told[0]
        assert "sync-model" in told[0]

    async def test_another_model_is_refused(self, tmp_path: Path) -> None:
        """A folder that holds another model than its name says is not used."""
        found = iter(["sha256:" + "b" * 64, DIGEST])
        told: list[str | None] = []
        model = await self.loaded(tmp_path, DIGEST, lambda _path: _with_digest(next(found)), told)
        assert model.classifier.info.digest == DIGEST
        assert any(problem and "bbbb" in problem for problem in told)

    async def test_a_broken_model_is_told_and_tried_again(self, tmp_path: Path) -> None:
        """A model that fails to load leaves a problem, and is loaded once it is repaired."""
        attempts = iter([ValueError("corrupt"), KeywordClassifier()])

        def load(_path: Path) -> Any:
            found = next(attempts)
            if isinstance(found, Exception):
                raise found
            return found

        (tmp_path / "current").mkdir()
        told: list[str | None] = []
        model = await self.loaded(tmp_path, None, load, told)
        assert model.classifier.info.version == "builtin"
        assert told == ["the model can't be loaded: ValueError"]


def _with_digest(digest: str) -> Any:
    return SimpleNamespace(info=KeywordInfo(labels=("refund",), digest=digest), classify=None)
