"""A turn of a conversation: what the agent is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.rules.case import Pending

GENERIC_LEVEL = 4
"""The last rung of the fallback ladder: the generic message."""


class Source(StrEnum):
    """Who found the answer."""

    RULES = "rules"
    MODEL = "model"
    FALLBACK = "fallback"


@dataclass(frozen=True)
class Exchange:
    """An earlier turn. ``reply`` is ``None`` where none was ever given."""

    text: str
    reply: str | None
    number: int = field(default=0, compare=False)
    """Which turn of the conversation it is."""


@dataclass(frozen=True)
class Turn:
    """A customer's message in its conversation."""

    task_id: str
    conversation_id: str
    customer_id: str
    number: int
    text: str
    received_at: datetime
    history: tuple[Exchange, ...] = ()
    pending: Pending | None = None
    escalated: bool = False
    has_later: bool = False
    """Whether the customer has written more since."""
    is_retry: bool = False
    """Whether an earlier attempt at the message may have used tools."""
    is_copy: bool = False
    """Whether nothing may last of it: the original is answered elsewhere."""
    revision: int = 0
    """Counts what changed earlier turns."""
    draft: Draft | None = field(default=None, compare=False, repr=False)
    """Where the answer is told while it comes, if somebody listens."""


@dataclass(frozen=True)
class Attempt:
    """Something the agent tried to do, and how that ended; a person who takes over should know."""

    tool: str
    outcome: str


@dataclass(frozen=True)
class Answer:
    """What the agent replies, and what becomes of the conversation."""

    text: str
    intent: str
    confidence: float
    source: Source
    model: str | None = None
    tools_enabled: bool = False
    fallback_level: int = 0
    pending: Pending | None = None
    escalate: bool = False
    """A person is called now; that a conversation already was with one shows in the conversation."""
    later: bool = False
    """The answer takes long: it is worked out apart from the others, and this one is no reply."""
    attempts: tuple[Attempt, ...] = ()
    """What was tried before; kept where a person is called."""
