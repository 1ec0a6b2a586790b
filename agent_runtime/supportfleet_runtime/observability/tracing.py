"""Traces: what became of a message, in spans, across the queue and whichever pods worked it.

Whoever does a part of the work opens a span below the one in hand: ``with span("nlu"):``. Nobody is handed a tracer for
that: the span in hand is a context variable, and where there is none, because tracing is off, ``span`` is one look at
it. The two ends where work enters a process, the gateway and the worker, begin a trace or continue one; what continues
it is a W3C ``traceparent``, which the task is stored with.

What a span may tell is listed: ``Field``. Names, codes, counts and times are in it; what customers write, who they are,
and keys are not. A failure is told by the kind of its exception alone.

Nothing of OpenTelemetry is imported here: ``tracing_otlp`` does so, where tracing is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from datetime import datetime
from enum import Enum, StrEnum
from types import MappingProxyType, TracebackType
from typing import Final, Protocol

from supportfleet_runtime.errors import ProviderError

Value = str | int | float | bool


class Kind(Enum):
    """What a span is to its parent, in OpenTelemetry's words."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    CONSUMER = "CONSUMER"


class Field(StrEnum):
    """What a span may tell, by OpenTelemetry's names where it has one."""

    METHOD = "http.request.method"
    ROUTE = "http.route"
    STATUS = "http.response.status_code"
    KIND = "supportfleet.kind"
    """What a worker works: a task, a long task, a callback."""
    TASK = "messaging.message.id"
    TRIES = "supportfleet.tries"
    INTENT = "supportfleet.intent"
    SOURCE = "supportfleet.source"
    LEVEL = "supportfleet.fallback_level"
    FOUND = "supportfleet.found"
    """Whether a rule, or the cache, had the answer."""
    ESCALATED = "supportfleet.escalated"
    STORED = "supportfleet.stored"
    """Whether the answer was stored: not where the lease was lost."""
    TOOL = "gen_ai.tool.name"
    OUTCOME = "supportfleet.outcome"
    """How a tool call ended."""
    MODEL = "gen_ai.request.model"
    TOKENS_READ = "gen_ai.usage.input_tokens"
    TOKENS_WRITTEN = "gen_ai.usage.output_tokens"
    ERROR = "error.type"


Fields = Mapping[Field, Value]
NO_FIELDS: Final[Fields] = MappingProxyType({})


class Span(Protocol):
    """A part of the work, from when it was opened until it is ended."""

    @property
    def traceparent(self) -> str | None:
        """What continues the trace elsewhere; ``None`` where there is none."""
        ...

    @property
    def ids(self) -> tuple[str, str] | None:
        """The trace's and the span's id, for logs."""
        ...

    def note(self, field: Field, value: Value) -> None:
        """Tell something more."""
        ...

    def fail(self, reason: str) -> None:
        """The work failed: the kind of an error, or a code."""
        ...

    def child(self, name: str, kind: Kind, fields: Fields) -> Span:
        """A part of this part, which begins now."""
        ...

    def end(self) -> None:
        """The work is over."""
        ...


class Tracer(Protocol):
    """Begins traces, and continues those of others."""

    def begin(
        self, name: str, kind: Kind = Kind.INTERNAL, fields: Fields = NO_FIELDS, *, parent: str | None = None
    ) -> AbstractContextManager[Span]:
        """A span that is in hand within the ``with``, below the one that ``parent`` (a ``traceparent``) names."""
        ...

    def passed(self, name: str, begun: datetime, ended: datetime, *, parent: str | None) -> None:
        """A span of a time that is over, which nobody had in hand: a wait."""
        ...


class _Nothing:
    """The span where there is no trace, and how it is opened: nothing happens."""

    traceparent: None = None
    ids: None = None

    def note(self, field: Field, value: Value) -> None:
        """Tell nobody."""

    def fail(self, reason: str) -> None:
        """Tell nobody."""

    def child(self, name: str, kind: Kind, fields: Fields) -> Span:  # noqa: ARG002 - as the protocol has it
        """Nothing either."""
        return self

    def end(self) -> None:
        """Nothing ends."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        return None


NOTHING: Final = _Nothing()
_in_hand: ContextVar[Span | None] = ContextVar("supportfleet_span", default=None)


class Opened:
    """A span in hand for as long as a ``with`` lasts."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span:
        self._token = _in_hand.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _in_hand.reset(self._token)
        if kind is not None:
            self._span.fail(error.reason if isinstance(error, ProviderError) else kind.__name__)
        self._span.end()


class NoTracer:
    """The tracer where tracing is off."""

    def begin(
        self,
        name: str,  # noqa: ARG002 - as the protocol has it
        kind: Kind = Kind.INTERNAL,  # noqa: ARG002
        fields: Fields = NO_FIELDS,  # noqa: ARG002
        *,
        parent: str | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Nothing begins."""
        return NOTHING

    def passed(self, name: str, begun: datetime, ended: datetime, *, parent: str | None) -> None:
        """Nothing is kept."""


def span(name: str, fields: Fields = NO_FIELDS, *, kind: Kind = Kind.INTERNAL) -> AbstractContextManager[Span]:
    """A span below the one in hand, where there is one."""
    above = _in_hand.get()
    return NOTHING if above is None else Opened(above.child(name, kind, fields))


def in_hand() -> Span:
    """The span in hand."""
    return _in_hand.get() or NOTHING


def traceparent() -> str | None:
    """What continues the trace in hand elsewhere."""
    above = _in_hand.get()
    return None if above is None else above.traceparent
