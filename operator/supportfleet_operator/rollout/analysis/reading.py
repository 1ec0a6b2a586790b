"""One pod's figures, parsed from its text and cut down to the few counters that the analysis needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

REQUESTS: Final = "requests"
"""Requests to the agent, without those that the caller got wrong (4xx), which say nothing about a revision."""
ERRORS: Final = "errors"
"""Requests that failed (5xx)."""
ANSWERS: Final = "answers"
"""Messages that this pod answered, whichever pod took them in."""
FALLBACKS: Final = "fallbacks"
"""Answers that were not the best rung of the ladder."""
ESCALATIONS: Final = "escalations"
"""Conversations handed to a person."""
COST: Final = "cost"
"""What models cost, in US dollars."""
BUCKET: Final = "le:"
"""Prefix of the latency histogram's buckets, followed by the upper bound in seconds."""
START: Final = "start"
"""When the process started: another start, other counters."""

_REQUEST: Final = "agent_request"
_FALLBACK: Final = "agent_fallback"
_ESCALATION: Final = "escalation_to_human"
_COST: Final = "agent_cost_usd"
_LATENCY: Final = "agent_response_latency_seconds"
_START: Final = "process_start_time_seconds"
_FAMILIES: Final = (_REQUEST, _FALLBACK, _ESCALATION, _COST, _LATENCY, _START)

MOST_LINES: Final = 5000
MOST_COUNTERS: Final = 100


class _UnreadableError(ValueError):
    """The text isn't the figures of an agent."""


def read(text: str) -> Mapping[str, float] | None:
    """The pod's counters by name; None where the text can't be trusted. A counter that it lacks is left out."""
    try:
        counters = _count(text)
    except (ValueError, KeyError, IndexError, TypeError):  # whatever a parser may say to a text that is no exposition
        return None
    return counters if len(counters) <= MOST_COUNTERS else None


def _count(text: str) -> Mapping[str, float]:
    lines = [line for line in text.splitlines() if _is_ours(line)]
    if len(lines) > MOST_LINES:
        raise _UnreadableError
    counters: dict[str, float] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for name in _OF_FAMILY.get(family.name.removesuffix("_total"), ()):
            counters.setdefault(name, 0.0)
        for sample in family.samples:
            if not isfinite(sample.value) or sample.value < 0:
                raise _UnreadableError
            for name in _counted_as(sample):
                counters[name] = counters.get(name, 0.0) + sample.value
    return counters


_OF_FAMILY: Final[Mapping[str, tuple[str, ...]]] = {
    _REQUEST: (REQUESTS, ERRORS),
    _FALLBACK: (ANSWERS, FALLBACKS),
    _ESCALATION: (ESCALATIONS,),
    _COST: (COST,),
}
"""What a family counts even where it has no sample yet: none so far."""


def _is_ours(line: str) -> bool:
    name = line.removeprefix("# TYPE ").removeprefix("# HELP ")
    return name.startswith(_FAMILIES)


def _counted_as(sample: Sample) -> Iterator[str]:
    if sample.name == f"{_REQUEST}_total":
        status = sample.labels["status"]
        if not status.startswith("4"):
            yield REQUESTS
        if status.startswith("5"):
            yield ERRORS
    elif sample.name == f"{_FALLBACK}_total":
        yield ANSWERS
        if sample.labels["level"] != "0":
            yield FALLBACKS
    elif sample.name == f"{_ESCALATION}_total":
        yield ESCALATIONS
    elif sample.name == f"{_COST}_total":
        yield COST
    elif sample.name == f"{_LATENCY}_bucket":
        yield BUCKET + _bound(sample.labels["le"])
    elif sample.name == _START:
        yield START


def _bound(text: str) -> str:
    bound = float(text)
    if bound != bound or bound < 0:  # noqa: PLR0124 - the only number that isn't itself is the one that is none
        raise _UnreadableError
    return "+Inf" if bound == inf else repr(bound)
