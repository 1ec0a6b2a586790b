"""The agent: a turn in, an answer out, whatever happens.

Intent first; what rules can answer they do; the rest goes to the language model and, where that fails, down the ladder
to the generic message (fallback level 4): the customer is never left without a reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from supportfleet_runtime.agent.classifier import OTHER, IntentClassifier
from supportfleet_runtime.agent.dialogue import Understanding, understand
from supportfleet_runtime.agent.entities import find_orders
from supportfleet_runtime.agent.ladder import Ladder
from supportfleet_runtime.agent.prompt import build_prompt
from supportfleet_runtime.agent.rules import RULES, Case
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.turn import GENERIC_LEVEL, Answer, Source, Turn
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.tracing import Field, span


class Agent:
    """Answers customers. ``now`` is the clock that the rules' dates are relative to.

    Settings and classifier may change at any time: each turn takes them once.
    """

    def __init__(
        self,
        settings: Callable[[], AgentSettings],
        classifier: Callable[[], IntentClassifier],
        ladder: Ladder,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._ladder = ladder
        self._metrics = metrics
        self._now = now

    async def answer(self, turn: Turn, *, may_defer: bool = False) -> Answer:
        """Answer ``turn``. Where the answer takes long and ``may_defer``, only say so."""
        settings, classifier = self._settings(), self._classifier()
        started = time.perf_counter()
        with span("nlu"):
            prediction = classifier.classify(turn.text)
        self._metrics.nlu_inference_time.observe(time.perf_counter() - started)
        orders = settings.order_book.of_customer(turn.customer_id)
        mentions = find_orders(turn.text, orders)
        threshold = settings.confidence_threshold
        if threshold is None:
            threshold = classifier.info.threshold
        meant = understand(turn.text, prediction, threshold, mentions, turn.pending)
        if may_defer and meant.intent in settings.long_intents:
            return Answer("", meant.intent, meant.confidence, Source.RULES, later=True)
        case = Case(mentions, orders, self._now().date(), settings, meant.asked, turn.escalated)
        return _by_rules(meant, case) or await self._by_model(meant, turn, settings)

    def generic(self) -> Answer:
        """The reply when there is no other."""
        return _generic(self._settings())

    async def _by_model(self, meant: Understanding, turn: Turn, settings: AgentSettings) -> Answer:
        found = await self._ladder.ask(build_prompt(turn, settings), turn.task_id)
        if found is None:
            return _generic(settings, meant.intent, meant.confidence)
        said = found.completion
        return Answer(
            said.text, meant.intent, meant.confidence, Source.MODEL, model=said.model, fallback_level=found.level
        )


def _by_rules(meant: Understanding, case: Case) -> Answer | None:
    if meant.intent not in case.settings.rules.intents:
        return None
    with span("rules", {Field.INTENT: meant.intent}) as ruling:
        found = RULES[meant.intent](case)
        ruling.note(Field.FOUND, found is not None)
    if found is None:
        return None
    return Answer(
        found.text, meant.intent, meant.confidence, Source.RULES, pending=found.pending, escalate=found.escalate
    )


def _generic(settings: AgentSettings, intent: str = OTHER, confidence: float = 0.0) -> Answer:
    return Answer(settings.fallback_reply, intent, confidence, Source.FALLBACK, fallback_level=GENERIC_LEVEL)
