"""What a rule is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from supportfleet_runtime.agent.entities import Mentions
from supportfleet_runtime.agent.orders import Order
from supportfleet_runtime.agent.settings import AgentSettings


@dataclass(frozen=True)
class Pending:
    """A question the agent asked and waits to have answered: which order the intent is about."""

    intent: str
    asked: int = 1


@dataclass(frozen=True)
class Case:
    """One message, with the facts the rules may use."""

    mentions: Mentions
    orders: Sequence[Order]
    today: date
    settings: AgentSettings
    asked: int = 0
    """How often the customer was already asked which order they mean."""
    escalated: bool = False
    """Whether the conversation is already with a person."""


@dataclass(frozen=True)
class RuleAnswer:
    """A reply. ``pending`` keeps the intent open for the next message; ``escalate`` calls a person."""

    text: str
    pending: Pending | None = None
    escalate: bool = False


Rule = Callable[[Case], RuleAnswer | None]
"""``None``: the rule has no answer, and the language model is asked."""
