"""Alert rules: somebody is called for what customers would notice, and no rule waits for a metric that isn't there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from supportfleet_runtime.checklist.outcome import Outcome, failed, judged
from supportfleet_runtime.checklist.rules import Alert, alerts_of
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.observability.metrics import described

# What must be watched, and what an expression that watches it mentions. The rules' names are their owner's.
NEEDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "the error rate": r"\bagent_request_total\b",
        "latency": r"\bagent_response_latency_seconds_bucket\b",
        "the queue's depth": r"\bagent_queue_depth\b",
        "pods that fail": r"\bup\b|\bkube_pod_\w+|\babsent\(",
        "dependencies": r"\bagent_dependency_healthy\b",
        "circuit breakers": r"\bagent_breaker_state\b",
        "fallbacks": r"\bagent_fallback_total\b",
        "escalations": r"\bescalation_to_human_total\b",
        "dead letters": r"\bagent_task_total\b",
        "effects that are not known": r"\bagent_effect_ambiguous_total\b",
        "callbacks": r"\bagent_callback_total\b",
        "model reloads that fail": r"\bagent_model_reload_(failed_info|total)\b",
    }
)
OURS: Final = re.compile(r"\b(?:agent|nlu|escalation)_[a-z0-9_]+")
SUFFIX: Final = re.compile(r"_(bucket|sum|count)$")


async def check(subject: Subject) -> Outcome:
    """Look at the rules in ALERT_RULES."""
    alerts = alerts_of(subject)
    if not alerts:
        return failed("there is no alert in ALERT_RULES")
    wrong = [*_unwatched(alerts), *_unheard_of(alerts), *_nobodys(alerts)]
    return judged(wrong, f"{len(alerts)} alerts watch {', '.join(NEEDED)}")


def _unwatched(alerts: Sequence[Alert]) -> Iterator[str]:
    for what, pattern in NEEDED.items():
        if not any(re.search(pattern, alert.expression) for alert in alerts):
            yield f"no alert watches {what}"


def _unheard_of(alerts: Sequence[Alert]) -> Iterator[str]:
    known = {one.name for one in described()}
    histograms = {one.name for one in described() if one.type == "histogram"}
    for alert in alerts:
        for name in sorted(set(OURS.findall(re.sub(r'"(\\.|[^"\\])*"', '""', alert.expression)))):
            if name not in known and SUFFIX.sub("", name) not in histograms:
                yield f"{alert.name} waits for {name}, which no agent has"


def _nobodys(alerts: Sequence[Alert]) -> Iterator[str]:
    for alert in alerts:
        if not alert.labels.get("severity"):
            yield f"{alert.name} has no label 'severity', so nobody knows whom to call"
