"""Telemetry that is sent: traces, as they are configured.

With ENABLE_TRACING they go to where OpenTelemetry's own variables say. With none of it nothing here imports
OpenTelemetry, and nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from supportfleet_runtime.config import Settings
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.otlp_headers import otlp_headers
from supportfleet_runtime.observability.outbox import Destination, Outbox
from supportfleet_runtime.observability.tracing import NoTracer, Tracer

FLUSH_SECONDS: Final = 3.0
"""How long a process that stops may take to send what it still has."""


@dataclass
class Telemetry:
    """What sends telemetry; ``run`` and ``close`` are the application's."""

    tracer: Tracer = field(default_factory=NoTracer)
    outboxes: Sequence[Outbox[Any]] = ()

    @property
    def traces(self) -> bool:
        """Whether tracing is on."""
        return not isinstance(self.tracer, NoTracer)

    async def run(self) -> None:
        """Send for as long as the process lives."""
        await asyncio.gather(*(outbox.run() for outbox in self.outboxes))

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.gather(*(outbox.close(FLUSH_SECONDS) for outbox in self.outboxes))


def make_telemetry(settings: Settings, metrics: Metrics) -> Telemetry:
    """What is configured."""
    destinations = trace_destinations(settings)
    if not destinations:
        return Telemetry()
    from supportfleet_runtime.observability.tracing_otlp import OtlpTracer, encode  # noqa: PLC0415 - see above

    outboxes = [Outbox(to, encode, _counting(metrics, to.name, "traces")) for to in destinations]
    return Telemetry(OtlpTracer(outboxes, resource(settings)), outboxes)


def trace_destinations(settings: Settings) -> list[Destination]:
    """Where traces go."""
    if not settings.enable_tracing:
        return []
    base = settings.otel_exporter_otlp_endpoint.rstrip("/")
    headers = settings.otel_exporter_otlp_traces_headers or settings.otel_exporter_otlp_headers
    return [
        Destination(
            "otlp",
            settings.otel_exporter_otlp_traces_endpoint or f"{base}/v1/traces",
            otlp_headers(headers.get_secret_value()) if headers else {},
            timeout=settings.otel_exporter_otlp_timeout / 1000,
            compress=settings.otel_exporter_otlp_compression == "gzip",
            certificate=settings.otel_exporter_otlp_certificate,
        )
    ]


def resource(settings: Settings) -> dict[str, str]:
    """Whose telemetry it is, in OpenTelemetry's words. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it."""
    return {
        "service.name": settings.agent_name,
        "service.namespace": settings.pod_namespace,
        "service.instance.id": settings.pod_name,
        "k8s.namespace.name": settings.pod_namespace,
        "k8s.pod.name": settings.pod_name,
        **({"service.version": settings.agent_revision} if settings.agent_revision else {}),
    }


def _counting(metrics: Metrics, destination: str, signal: str) -> Callable[[int, str], None]:
    def dropped(number: int, reason: str) -> None:
        metrics.telemetry_dropped.labels(destination=destination, signal=signal, reason=reason).inc(number)

    return dropped
