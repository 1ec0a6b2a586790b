"""What the gateway answers, as models: the description's half of ``schema``, whose functions make the documents.

Documents are made of dictionaries, since a model for each would cost a tenth of a message's time; that both agree is
tested against a running gateway.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Source = Literal["rules", "model", "fallback"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Reply(_Document):
    reply: str
    intent: str
    confidence: float
    source: str
    model: str | None
    tools_enabled: bool
    fallback_level: Annotated[int, Field(ge=0, le=4)]
    escalated: bool


class MessageAnswer(_Reply):
    """A message that was answered in time."""

    task_id: str
    conversation_id: str
    message_id: str
    latency_ms: float


class MessageAccepted(_Document):
    """A message that is stored, and whose answer takes longer."""

    task_id: str
    conversation_id: str
    message_id: str
    status: Literal["queued"]


class TaskCallback(_Document):
    """What became of the callback that the message asked for; `error` is why its last attempt failed."""

    kind: Literal["webhook", "email"]
    state: Literal["waiting", "delivering", "delivered", "failed"]
    tries: int
    error: str | None
    finished_at: datetime | None


class Task(_Document):
    """A message's work; the reply's members are there once it ended, and others where it takes long or calls back."""

    task_id: str
    conversation_id: str
    message_id: str
    status: Literal["queued", "running", "done", "failed"]
    created_at: datetime
    finished_at: datetime | None
    reply: str | None = None
    intent: str | None = None
    confidence: float | None = None
    source: str | None = None
    model: str | None = None
    tools_enabled: bool | None = None
    fallback_level: Annotated[int, Field(ge=0, le=4)] | None = None
    escalated: bool | None = None
    progress: Annotated[int, Field(ge=0, le=100)] | None = None
    result: Any = None
    callback: TaskCallback | None = None


class ConversationMessage(_Document):
    """One side's message; the last members are there for the agent's."""

    message_id: str
    turn: int
    role: Literal["customer", "agent"]
    text: str
    created_at: datetime
    intent: str | None = None
    confidence: float | None = None
    source: str | None = None
    model: str | None = None
    fallback_level: int | None = None


class Conversation(_Document):
    """A conversation's latest messages, oldest first."""

    conversation_id: str
    customer_id: str
    status: Literal["open", "escalated"]
    created_at: datetime
    updated_at: datetime
    has_earlier: bool
    messages: list[ConversationMessage]


class Liveness(_Document):
    """The process lives."""

    status: Literal["ok"]


class ReadinessCheck(_Document):
    """One thing that must be right."""

    ok: bool
    message: str


class ReadinessReport(_Document):
    """Whether messages should be sent here, and why not."""

    status: Literal["ready", "not ready"]
    checks: dict[str, ReadinessCheck]


class HealthComponent(BaseModel):
    """One part's state, with figures of its own."""

    status: Literal["healthy", "unhealthy", "unknown", "not configured"]
    message: str


class HealthReport(_Document):
    """The whole picture."""

    status: Literal["healthy", "degraded", "unhealthy"]
    reasons: list[str]
    version: str
    revision: str | None
    pod: str
    checked_at: datetime
    components: dict[str, HealthComponent]
    breakers: dict[str, str]


class WrongField(_Document):
    """One place that is wrong: a JSON pointer into the body, ``?NAME`` of the query, or a header's name."""

    pointer: str
    detail: str


class Problem(_Document):
    """An error (RFC 9457)."""

    type: Annotated[str, Field(pattern="^urn:supportfleet:problem:[a-z-]+$")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    request_id: str
    errors: list[WrongField] | None = None
