"""The agent: a turn in, an answer out, whatever happens.

Intent first; what rules can answer they do; the rest goes to the language model, with its tools, and, where that fails,
down the ladder to the generic message (fallback level 4): the customer is never left without a reply.

What tools did is told whoever answers: where nobody is left to, their own messages are the reply. Where a tool needs a
person, one is called and the reply says so, whatever the model said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

from supportfleet_runtime.agent.classifier import OTHER, IntentClassifier
from supportfleet_runtime.agent.dialogue import Understanding, understand
from supportfleet_runtime.agent.entities import find_orders
from supportfleet_runtime.agent.ladder import Ladder
from supportfleet_runtime.agent.prompt import build_prompt
from supportfleet_runtime.agent.rules import RULES, Case
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.toolbox import Authority, Toolbox, ToolSession
from supportfleet_runtime.agent.turn import GENERIC_LEVEL, Answer, Attempt, Source, Turn
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.tracing import Field, span

RECALL_SECONDS: Final = 2.0
"""How long a retried message may look for what its earlier attempt did."""


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
        *,
        toolbox: Toolbox | None = None,
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._ladder = ladder
        self._metrics = metrics
        self._now = now
        self._toolbox = toolbox

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
        tools = await self._tools(turn, settings)
        found = await self._ladder.ask(build_prompt(turn, settings), turn.task_id, tools, turn.draft)
        if found is None:
            answer = _generic(settings, meant.intent, meant.confidence)
            return _with_effects(answer, tools, turn, settings) if tools else answer
        said = found.completion
        answer = Answer(
            said.text,
            meant.intent,
            meant.confidence,
            Source.MODEL,
            model=said.model,
            tools_enabled=found.tools_enabled,
            fallback_level=found.level,
        )
        return _with_person(answer, tools, turn, settings) if tools and tools.needs_person else answer

    async def _tools(self, turn: Turn, settings: AgentSettings) -> ToolSession | None:
        if self._toolbox is None:
            return None
        authority = Authority(turn.customer_id, turn.task_id, turn.conversation_id, may_change=not turn.is_copy)
        session = ToolSession(self._toolbox, authority, limit=settings.tools.max_calls)
        if turn.is_retry:
            await session.recall(within=RECALL_SECONDS)
        return session


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


def _with_effects(answer: Answer, tools: ToolSession, turn: Turn, settings: AgentSettings) -> Answer:
    """The generic message, or in its place what was done before nobody was left to tell of it."""
    if tools.changes:
        answer = replace(answer, text="\n".join(result.message for result in tools.changes))
    return _with_person(answer, tools, turn, settings) if tools.needs_person else answer


def _with_person(answer: Answer, tools: ToolSession, turn: Turn, settings: AgentSettings) -> Answer:
    """Call a person, and say so, whatever the model said; the person is told what was tried."""
    if turn.escalated:
        return answer
    attempts = tuple(Attempt(result.tool, result.status.value) for result in tools.results)
    return replace(answer, text=f"{answer.text}\n\n{settings.escalation_reply}", escalate=True, attempts=attempts)
