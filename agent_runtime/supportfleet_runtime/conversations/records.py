"""What is told of conversations and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

TaskState = Literal["queued", "running", "done", "failed"]
CallbackState = Literal["waiting", "delivering", "delivered", "failed"]


@dataclass(frozen=True)
class Callback:
    """Who is to be told that a task has ended."""

    id: str
    kind: str
    target: str = field(repr=False)


@dataclass(frozen=True)
class CallbackRecord:
    """What became of a callback. ``error`` is why the last attempt failed."""

    kind: str
    state: CallbackState
    tries: int
    error: str | None
    finished_at: datetime | None


@dataclass(frozen=True)
class Once:
    """A key that a message has from its sender, and a digest of what they sent with it."""

    key: str
    digest: str


@dataclass(frozen=True)
class Incoming:
    """A customer's message, with the ids it will have."""

    task_id: str
    message_id: str
    customer_id: str
    conversation_id: str
    is_new: bool
    """Whether the message opens the conversation."""
    text: str
    received_at: datetime
    trace: str | None = None
    """What continues the trace of the request."""
    callback: Callback | None = None
    urgent: bool = False
    """Whether the caller says that it goes before others."""
    once: Once | None = None


@dataclass(frozen=True)
class Reply:
    """The agent's answer as it was stored."""

    text: str
    intent: str
    confidence: float
    source: str
    model: str | None
    tools_enabled: bool
    fallback_level: int
    escalated: bool
    """Whether the conversation is with a person."""


@dataclass(frozen=True)
class Deferred:
    """What stands for a reply that takes long: the customer is told later."""

    intent: str


Outcome = Reply | Deferred
"""What a request that waits is told."""


@dataclass(frozen=True)
class Long:
    """A long task's own facts. ``progress`` is in percent; ``result`` is there once the task is done."""

    progress: int
    result: Any


@dataclass(frozen=True)
class TaskRecord:
    """A task as its customer may know it. ``reply`` is there once it ended."""

    task_id: str
    conversation_id: str
    message_id: str
    state: TaskState
    created_at: datetime
    finished_at: datetime | None
    reply: Reply | None
    long: Long | None = None
    callback: CallbackRecord | None = None


@dataclass(frozen=True)
class MessageRecord:
    """One side's message. ``reply`` is there for the agent's."""

    message_id: str
    turn: int
    role: str
    text: str
    created_at: datetime
    reply: Reply | None


@dataclass(frozen=True)
class ConversationRecord:
    """A conversation and its latest messages, oldest first."""

    conversation_id: str
    customer_id: str
    escalated: bool
    created_at: datetime
    updated_at: datetime
    messages: tuple[MessageRecord, ...]
    has_earlier: bool
    """Whether there are messages before these."""
