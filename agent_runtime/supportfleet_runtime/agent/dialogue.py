"""Which intent a message has: what the classifier says, weighed against the question the agent asked before. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from supportfleet_runtime.agent.classifier import OTHER, Prediction
from supportfleet_runtime.agent.entities import Mentions, words_beside_numbers
from supportfleet_runtime.agent.rules.case import Pending

SHORT_ANSWER = 3
"""Beside its order number, an answer to "which order?" has no more words than this ("it is the …")."""


@dataclass(frozen=True)
class Understanding:
    """The intent to act on. ``asked``: how often the agent already asked for what is missing."""

    intent: str
    confidence: float
    asked: int = 0


def understand(
    text: str, prediction: Prediction, threshold: float, mentions: Mentions, pending: Pending | None
) -> Understanding:
    """Decide on the intent.

    An answer to the agent's question keeps the question's intent, since "A-1001" alone means nothing to a classifier;
    a sentence with a confident intent of its own is a new wish; anything else is an answer that missed the question.
    """
    confident = prediction.confidence >= threshold and prediction.candidate != OTHER
    if pending is None:
        return Understanding(prediction.candidate if confident else OTHER, prediction.confidence)
    short = words_beside_numbers(text) <= SHORT_ANSWER
    if mentions and (short or not confident):
        return Understanding(pending.intent, 1.0, pending.asked)
    if confident and prediction.candidate != pending.intent:
        return Understanding(prediction.candidate, prediction.confidence)
    return Understanding(pending.intent, prediction.confidence, pending.asked)
