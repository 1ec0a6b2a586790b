"""The metrics as they changed since the last look, for whoever is sent them and doesn't come for them.

Prometheus reads totals since the process began. What is sent is the change of each counter and histogram since the last
reading, and each gauge as it is: Datadog's intake takes no totals, and a statsd agent adds up what it is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

Labels = tuple[tuple[str, str], ...]
BOUND: Final = "le"


@dataclass(frozen=True)
class Count:
    """By how much a counter rose."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True)
class Level:
    """Where a gauge is."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True)
class Spread:
    """What a histogram took in: ``counts`` has one more than ``bounds``, for what lies above them."""

    name: str
    labels: Labels
    sum: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)


Reading = Count | Level | Spread


class Readings:
    """Takes readings of a registry, each from where the last one ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._last: dict[tuple[str, Labels], float] = {}

    def take(self) -> Sequence[Reading]:
        """What there is to tell: nothing of counters that stand still, and of gauges that are not known."""
        return [reading for family in self._registry.collect() for reading in self._of(family)]

    def _of(self, family: Metric) -> Iterator[Reading]:
        if family.type == "histogram":
            yield from self._spreads(family)
            return
        for sample in family.samples:
            labels = tuple(sample.labels.items())
            if family.type == "counter":
                if risen := self._risen(sample.name, labels, sample.value):
                    yield Count(sample.name, labels, risen)
            elif math.isfinite(sample.value):
                yield Level(sample.name, labels, sample.value)

    def _spreads(self, family: Metric) -> Iterator[Spread]:
        sums: dict[Labels, float] = {}
        buckets: dict[Labels, dict[float, float]] = {}
        for sample in family.samples:
            labels = tuple(item for item in sample.labels.items() if item[0] != BOUND)
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels[BOUND])
                risen = self._risen(sample.name, tuple(sample.labels.items()), sample.value)
                buckets.setdefault(labels, {})[bound] = risen
            elif sample.name.endswith("_sum"):
                sums[labels] = self._risen(sample.name, labels, sample.value)
        for labels, found in buckets.items():
            bounds = sorted(found)
            cumulated = [round(found[bound]) for bound in bounds]
            counts = tuple(upper - lower for lower, upper in zip([0, *cumulated], cumulated, strict=False))
            if cumulated[-1]:
                yield Spread(family.name, labels, sums.get(labels, 0.0), tuple(bounds[:-1]), counts)

    def _risen(self, name: str, labels: Labels, value: float) -> float:
        before = self._last.get((name, labels), 0.0)
        self._last[name, labels] = value
        return value - before
