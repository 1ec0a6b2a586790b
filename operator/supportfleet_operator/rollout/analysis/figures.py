"""Rates and quantiles of what was counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from supportfleet_operator.api import MetricName
from supportfleet_operator.rollout.analysis import reading
from supportfleet_operator.rollout.analysis.window import Counters

P99: Final = 0.99


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and what it was measured on."""

    value: float | None
    samples: int | None
    """None where nobody knows: a query has its own idea of what is enough."""
    at_least: bool = False
    """The value is only a lower bound: it lies beyond the histogram's last bucket."""
    message: str = ""
    """Why there is no value."""
    unknown: bool = False
    """There may be figures, but they could not be told; not the same as none."""

    def is_enough(self, samples: int) -> bool:
        """Whether it is a value to go by."""
        return self.value is not None and (self.samples is None or self.samples >= samples)


NOTHING: Final = Figure(None, 0)


def figure(name: MetricName, counted: Counters) -> Figure:
    """One of the built-in figures."""
    match name:
        case "errorRate":
            return _rate(counted.get(reading.ERRORS), counted.get(reading.REQUESTS))
        case "fallbackRate":
            return _rate(counted.get(reading.FALLBACKS), counted.get(reading.ANSWERS))
        case "escalationRate":
            return _rate(counted.get(reading.ESCALATIONS), counted.get(reading.ANSWERS))
        case "resolutionRate":
            escalated = _rate(counted.get(reading.ESCALATIONS), counted.get(reading.ANSWERS))
            return escalated if escalated.value is None else Figure(1 - escalated.value, escalated.samples)
        case "costPerReply":
            return _share(counted.get(reading.COST), counted.get(reading.REQUESTS))
        case "latencyP99":
            return quantile(P99, _buckets(counted))


def quantile(share: float, buckets: Mapping[float, float]) -> Figure:
    """The value that this share of the samples is within, interpolated in its bucket as Prometheus does."""
    total = buckets.get(inf, 0.0)
    if total <= 0:
        return NOTHING
    rank = share * total
    lower, below = 0.0, 0.0
    for bound in sorted(buckets):
        count = max(below, buckets[bound])
        if bound == inf:
            return Figure(lower, int(total), at_least=True)
        if count >= rank:
            within = (rank - below) / (count - below) if count > below else 1.0
            return Figure(lower + (bound - lower) * within, int(total))
        lower, below = bound, count
    return NOTHING


def _rate(part: float | None, whole: float | None) -> Figure:
    """A share of the whole: pods count in no certain order, so a part may be ahead of its whole for a moment."""
    return _share(part if part is None or whole is None else min(part, whole), whole)


def _share(part: float | None, whole: float | None) -> Figure:
    """So much for each; without one of the whole there is nothing to tell."""
    if part is None or not whole:
        return NOTHING
    return Figure(part / whole, int(whole))


def _buckets(counted: Counters) -> Mapping[float, float]:
    prefix = reading.BUCKET
    return {float(name.removeprefix(prefix)): value for name, value in counted.items() if name.startswith(prefix)}
