"""Traces by OpenTelemetry's SDK, sent as OTLP over HTTP (protobuf). Imported only where tracing is on.

The SDK samples, makes ids and holds spans; what it ends goes to an ``Outbox`` for each destination. Its own exporter is
not used: it sends every destination the headers of the environment, and so one's key to another, and it tells nobody
what it dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from supportfleet_runtime.observability.outbox import Outbox
from supportfleet_runtime.observability.tracing import NO_FIELDS, Field, Fields, Kind, Opened, Span, Value

SCOPE: Final = "supportfleet_runtime"
MAX_VALUE: Final = 200
"""Characters of a value: names and codes are shorter."""
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-[^\s]*)?")
KINDS: Final = {kind: SpanKind[kind.value] for kind in Kind}
NANOSECONDS: Final = 1_000_000_000


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Spans as the body of a request."""
    return bytes(encode_spans(spans).SerializeToString())


class _Sending(SpanProcessor):
    """Puts each ended span into the outboxes."""

    def __init__(self, outboxes: Sequence[Outbox[ReadableSpan]]) -> None:
        self._outboxes = outboxes

    def on_end(self, span: ReadableSpan) -> None:
        if span.context and span.context.trace_flags.sampled:
            for outbox in self._outboxes:
                outbox.put(span)


class OtlpTracer:
    """Begins and continues traces. ``resource`` says whose they are; ``mask`` takes secrets out of values."""

    def __init__(
        self,
        outboxes: Sequence[Outbox[ReadableSpan]],
        resource: Mapping[str, str],
        mask: Callable[[str], str] = str,
    ) -> None:
        provider = TracerProvider(resource=Resource.create(dict(resource)), shutdown_on_exit=False)
        provider.add_span_processor(_Sending(outboxes))
        self._tracer = provider.get_tracer(SCOPE)
        self._mask = mask

    def begin(
        self, name: str, kind: Kind = Kind.INTERNAL, fields: Fields = NO_FIELDS, *, parent: str | None = None
    ) -> AbstractContextManager[Span]:
        """A span below the one that ``parent`` names, or the first of a trace."""
        return Opened(self.start(name, kind, fields, _context(parent)))

    def passed(self, name: str, begun: datetime, ended: datetime, *, parent: str | None) -> None:
        """A span of a time that is over."""
        start, end = (round(moment.timestamp() * NANOSECONDS) for moment in (begun, ended))
        self._tracer.start_span(name, _context(parent), start_time=start).end(max(start, end))

    def start(self, name: str, kind: Kind, fields: Fields, context: Context) -> Span:
        """A span that begins now."""
        attributes = {field.value: self.shown(value) for field, value in fields.items()}
        return _OtlpSpan(self, self._tracer.start_span(name, context, KINDS[kind], attributes))

    def shown(self, value: Value) -> Value:
        """A value as it may be told."""
        return self._mask(value[:MAX_VALUE]) if isinstance(value, str) else value


class _OtlpSpan:
    """One span."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: OtlpTracer, span: api.Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"

    @property
    def ids(self) -> tuple[str, str]:
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    def note(self, field: Field, value: Value) -> None:
        self._span.set_attribute(field.value, self._tracer.shown(value))

    def fail(self, reason: str) -> None:
        self.note(Field.ERROR, reason)
        self._span.set_status(Status(StatusCode.ERROR))

    def child(self, name: str, kind: Kind, fields: Fields) -> Span:
        if not self._span.is_recording():
            return self  # what is not sampled is not worth another span
        return self._tracer.start(name, kind, fields, api.set_span_in_context(self._span, Context()))

    def end(self) -> None:
        self._span.end()


def _context(traceparent: str | None) -> Context:
    """The context that a ``traceparent`` names; of one that is none, a new trace's."""
    found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return Context()
    trace, span, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
    return api.set_span_in_context(NonRecordingSpan(context), Context()) if context.is_valid else Context()
