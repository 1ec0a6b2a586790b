"""Telemetry that is sent: traces and metrics, as they are configured.

With ENABLE_TRACING traces go to where OpenTelemetry's own variables say. With DATADOG_API_KEY traces and metrics go to
Datadog's intake for OTLP; metrics go to its agent on the node instead, by DogStatsD, where DD_AGENT_HOST names one.
Prometheus comes for metrics all the same. Without any of it nothing here imports OpenTelemetry, and nothing runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from supportfleet_runtime.config import Configuration, Settings, secrets
from supportfleet_runtime.observability.masking import masking
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.otlp_headers import otlp_headers
from supportfleet_runtime.observability.outbox import Destination, Outbox
from supportfleet_runtime.observability.readings import Reading, Readings
from supportfleet_runtime.observability.statsd import StatsdClient
from supportfleet_runtime.observability.tracing import NoTracer, Tracer

# ruff: noqa: PLC0415 - OpenTelemetry is imported where it is wanted, and nowhere else

FLUSH_SECONDS: Final = 3.0
"""How long a process that stops may take to send what it still has."""
READ_SECONDS: Final = 10.0
"""How often metrics are read to be sent."""
KEPT_READINGS: Final = 60
"""How many readings are kept while nobody takes them: of ten minutes."""
DEPTH_SECONDS: Final = 5.0


class Sending(Protocol):
    """Something that sends telemetry."""

    async def run(self) -> None:
        """Send for as long as the process lives."""
        ...

    async def close(self, grace: float) -> None:
        """Send what is left within ``grace`` seconds."""
        ...


@dataclass
class Telemetry:
    """What sends telemetry; ``run`` and ``close`` are the application's."""

    tracer: Tracer = field(default_factory=NoTracer)
    senders: Sequence[Sending] = ()

    @property
    def traces(self) -> bool:
        """Whether tracing is on."""
        return not isinstance(self.tracer, NoTracer)

    async def run(self) -> None:
        """Send for as long as the process lives."""
        await asyncio.gather(*(one.run() for one in self.senders))

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.gather(*(one.close(FLUSH_SECONDS) for one in self.senders))


class MetricsSender:
    """Reads the metrics again and again, the queue's depth with them, and passes them on."""

    def __init__(
        self,
        metrics: Metrics,
        depth: Callable[[], Awaitable[int]],
        deliver: Callable[[Sequence[Reading]], Awaitable[None]],
    ) -> None:
        self._metrics = metrics
        self._depth = depth
        self._readings = Readings(metrics.registry)
        self._deliver = deliver

    async def run(self) -> None:
        """Read for as long as the process lives."""
        while True:
            await asyncio.sleep(READ_SECONDS)
            await self.read()

    async def read(self) -> None:
        """Read once."""
        await self._metrics.read_depth(self._depth, DEPTH_SECONDS)
        await self._deliver(self._readings.take())

    async def close(self, grace: float) -> None:
        """Read a last time: what was counted since is told too."""
        try:
            async with asyncio.timeout(grace):
                await self._deliver(self._readings.take())
        except TimeoutError:
            return


def make_telemetry(configuration: Configuration, metrics: Metrics, depth: Callable[[], Awaitable[int]]) -> Telemetry:
    """What is configured; ``depth`` asks for the queue's."""
    settings = configuration.settings
    tracer: Tracer = NoTracer()
    senders: list[Sending] = []
    if destinations := trace_destinations(settings):
        from supportfleet_runtime.observability.tracing_otlp import OtlpTracer, encode

        outboxes = [Outbox(to, encode, _counting(metrics, to.name, "traces")) for to in destinations]
        tracer = OtlpTracer(outboxes, resource(settings), masking(secrets(configuration)))
        senders += outboxes
    if settings.dd_agent_host:
        senders.append(_to_agent(settings, settings.dd_agent_host, metrics, depth))
    elif settings.datadog_api_key:
        senders += _to_intake(settings, datadog(settings, "metrics"), metrics, depth)
    return Telemetry(tracer, senders)


def trace_destinations(settings: Settings) -> list[Destination]:
    """Where traces go."""
    destinations = []
    if settings.enable_tracing:
        base = settings.otel_exporter_otlp_endpoint.rstrip("/")
        headers = settings.otel_exporter_otlp_traces_headers or settings.otel_exporter_otlp_headers
        collector = Destination(
            "otlp",
            settings.otel_exporter_otlp_traces_endpoint or f"{base}/v1/traces",
            otlp_headers(headers.get_secret_value()) if headers else {},
            timeout=settings.otel_exporter_otlp_timeout / 1000,
            compress=settings.otel_exporter_otlp_compression == "gzip",
            certificate=settings.otel_exporter_otlp_certificate,
        )
        destinations.append(collector)
    if settings.datadog_api_key:
        destinations.append(datadog(settings, "traces"))
    return destinations


def datadog(settings: Settings, signal: str) -> Destination:
    """Datadog's intake. Its figures by service and route are made of traces only where that is asked for."""
    base = settings.dd_otlp_endpoint or f"https://otlp.{settings.dd_site}"
    key = settings.datadog_api_key
    headers = {"dd-api-key": key.get_secret_value()} if key else {}
    if signal == "traces":
        headers["compute_stats"] = "true"
    return Destination("datadog", f"{base.rstrip('/')}/v1/{signal}", headers, compress=True)


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


def _to_intake(
    settings: Settings, to: Destination, metrics: Metrics, depth: Callable[[], Awaitable[int]]
) -> list[Sending]:
    from supportfleet_runtime.observability.metrics_otlp import encode, metric

    whose = resource(settings)
    outbox: Outbox[Any] = Outbox(
        to, partial(encode, resource=whose), _counting(metrics, to.name, "metrics"), size=KEPT_READINGS
    )
    last = time.time_ns()

    async def deliver(readings: Sequence[Reading]) -> None:
        nonlocal last
        begun, last = last, time.time_ns()
        outbox.put([metric(one, begun, last) for one in readings])

    return [_Both(MetricsSender(metrics, depth, deliver), outbox)]


def _to_agent(settings: Settings, host: str, metrics: Metrics, depth: Callable[[], Awaitable[int]]) -> Sending:
    tags = {"service": settings.agent_name, "kube_namespace": settings.pod_namespace, "pod_name": settings.pod_name}
    if settings.agent_revision:
        tags["version"] = settings.agent_revision
    client = StatsdClient(host, settings.dd_dogstatsd_port, tags)
    return _Closing(MetricsSender(metrics, depth, client.send), client)


@dataclass(frozen=True)
class _Both:
    """A reader and the outbox that it fills."""

    reader: MetricsSender
    outbox: Outbox[Any]

    async def run(self) -> None:
        await asyncio.gather(self.reader.run(), self.outbox.run())

    async def close(self, grace: float) -> None:
        await self.reader.close(grace)
        await self.outbox.close(grace)


@dataclass(frozen=True)
class _Closing:
    """A reader and the socket that it writes to."""

    reader: MetricsSender
    client: StatsdClient

    async def run(self) -> None:
        await self.reader.run()

    async def close(self, grace: float) -> None:
        await self.reader.close(grace)
        self.client.close()


def _counting(metrics: Metrics, destination: str, signal: str) -> Callable[[int, str], None]:
    def dropped(number: int, reason: str) -> None:
        metrics.telemetry_dropped.labels(destination=destination, signal=signal, reason=reason).inc(number)

    return dropped
