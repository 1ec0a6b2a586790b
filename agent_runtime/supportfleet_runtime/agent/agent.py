"""The agent: a turn in, an answer out, whatever happens.

Intent first; what rules can answer they do; the rest goes to the language model; where that fails the customer gets
the generic message (fallback level 4) and is never left without a reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import structlog

from supportfleet_runtime.agent.classifier import OTHER, IntentClassifier
from supportfleet_runtime.agent.dialogue import Understanding, understand
from supportfleet_runtime.agent.entities import find_orders
from supportfleet_runtime.agent.prompt import build_prompt
from supportfleet_runtime.agent.providers.port import Provider
from supportfleet_runtime.agent.rules import RULES, Case
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.turn import GENERIC_LEVEL, Answer, Source, Turn
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.metrics import Metrics

log = structlog.get_logger()


class Agent:
    """Answers customers. ``now`` is the clock that the rules' dates are relative to."""

    def __init__(
        self,
        settings: AgentSettings,
        classifier: Callable[[], IntentClassifier],
        provider: Provider,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._provider = provider
        self._metrics = metrics
        self._now = now

    async def answer(self, turn: Turn) -> Answer:
        """Answer ``turn``."""
        started = time.perf_counter()
        classifier = self._classifier()
        prediction = classifier.classify(turn.text)
        self._metrics.nlu_inference_time.observe(time.perf_counter() - started)
        orders = self._settings.order_book.of_customer(turn.customer_id)
        mentions = find_orders(turn.text, orders)
        threshold = self._settings.confidence_threshold
        if threshold is None:
            threshold = classifier.info.threshold
        meant = understand(turn.text, prediction, threshold, mentions, turn.pending)
        case = Case(mentions, orders, self._now().date(), self._settings, meant.asked, turn.escalated)
        return self._by_rules(meant, case) or await self._by_model(meant, turn)

    def generic(self, intent: str = OTHER, confidence: float = 0.0) -> Answer:
        """The reply when there is no other."""
        return Answer(self._settings.fallback_reply, intent, confidence, Source.FALLBACK, fallback_level=GENERIC_LEVEL)

    def _by_rules(self, meant: Understanding, case: Case) -> Answer | None:
        if meant.intent not in self._settings.rules.intents:
            return None
        found = RULES[meant.intent](case)
        if found is None:
            return None
        return Answer(
            found.text, meant.intent, meant.confidence, Source.RULES, pending=found.pending, escalate=found.escalate
        )

    async def _by_model(self, meant: Understanding, turn: Turn) -> Answer:
        try:
            completion = await self._provider.complete(build_prompt(turn, self._settings))
        except ProviderError as error:
            log.warning("provider_failed", task_id=turn.task_id, reason=error.reason)
            return self.generic(meant.intent, meant.confidence)
        self._metrics.count_tokens(completion.input_tokens, completion.output_tokens)
        return Answer(completion.text, meant.intent, meant.confidence, Source.MODEL, model=completion.model)
