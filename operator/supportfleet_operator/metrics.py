"""What the operator measures of itself, for Prometheus; docs/operations.md says what to alert on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

REQUEST_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RECONCILE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)

Reading = Callable[[], Iterable[tuple[str, float]]]
"""Label value and number, read when Prometheus asks."""


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.reconciles = Counter(
            "supportfleet_reconcile",
            "Reconciles by result: success, retry (the API server was busy or away) or error (a bug).",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "supportfleet_reconcile_duration_seconds",
            "How long one reconcile took.",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "supportfleet_api_requests",
            "Requests to the API server by verb, resource and status code ('none': no answer).",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "supportfleet_api_request_duration_seconds",
            "Time until the API server's answer began; watches not counted.",
            ["verb"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.leader = Gauge(
            "supportfleet_leader", "1 on the replica that reconciles, 0 on the others.", registry=self.registry
        )

    def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """Count one request."""
        self.requests.labels(verb, resource, code).inc()
        if verb != "watch":
            self.request_seconds.labels(verb).observe(seconds)

    def leads(self, leading: bool) -> None:  # noqa: FBT001 - a gauge's two states
        """Tell whether this replica leads."""
        self.leader.set(1 if leading else 0)

    def read(self, name: str, documentation: str, label: str, reading: Reading) -> None:
        """Add a gauge that is read on request; without a label's name it has one value."""
        self.registry.register(_Reading(name, documentation, label, reading))


class _Reading(Collector):
    """A gauge whose values are asked for when they are wanted."""

    def __init__(self, name: str, documentation: str, label: str, reading: Reading) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._reading = reading

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
        for value, number in self._reading():
            family.add_metric([value] if self._label else [], number)
        yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [GaugeMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])]
