"""The whole picture, as ``GET /v1/health`` gives it. Pure.

==============  =========  ======================================================================
overall         HTTP       when
==============  =========  ======================================================================
``unhealthy``   503        the process is not ready, or the database is unhealthy: no message can be answered
``degraded``    200        messages are answered, yet something else is not as it should be
``healthy``     200        neither
==============  =========  ======================================================================

Figures of the last five minutes are judged from ``LEAST_MESSAGES`` messages on: one failure in three is no rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from supportfleet_runtime.health.monitor import State
from supportfleet_runtime.health.readiness import Readiness
from supportfleet_runtime.health.window import WINDOW_SECONDS, Figures

MOST_QUEUED: Final = 10_000
MOST_ERRORS: Final = 0.05
LONGEST_P99: Final = 10.0
"""Seconds. A third of what the slowest answer may take: customers have begun to write again by then."""
LEAST_MESSAGES: Final = 20

DATABASE: Final = "database"
CLAUDE: Final = "claude"
NOT_CONFIGURED: Final = "not configured"
SCRIPTED: Final = "the scripted provider answers"
OF_WORKERS: Final = "this is a gateway alone: workers ask the language model, and tell of it"


class Overall(StrEnum):
    """How it is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def http_status(self) -> HTTPStatus:
        """What load balancers and monitors look at."""
        return HTTPStatus.SERVICE_UNAVAILABLE if self is Overall.UNHEALTHY else HTTPStatus.OK


@dataclass(frozen=True)
class Observed:
    """Everything that a report is made of. ``depth`` is ``None`` where the queue's can't be known."""

    version: str
    revision: str | None
    pod: str
    at: datetime
    readiness: Readiness
    dependencies: Mapping[str, State]
    depth: int | None
    figures: Figures
    breakers: Mapping[str, str]
    works: bool = True
    """Whether messages are answered in this process, which takes the language model."""


@dataclass(frozen=True)
class Report:
    """The picture: ``components`` each with ``status`` and ``message``, ``reasons`` of whatever is wrong."""

    overall: Overall
    reasons: Sequence[str]
    components: Mapping[str, Mapping[str, Any]]
    observed: Observed

    def as_json(self) -> dict[str, Any]:
        """What the endpoint answers."""
        seen = self.observed
        return {
            "status": self.overall,
            "reasons": list(self.reasons),
            "version": seen.version,
            "revision": seen.revision,
            "pod": seen.pod,
            "checked_at": seen.at,
            "components": dict(self.components),
            "breakers": dict(seen.breakers),
        }


def report(observed: Observed) -> Report:
    """Judge what was observed."""
    components: dict[str, Mapping[str, Any]] = {
        "api": _api(observed.readiness),
        CLAUDE: {"status": NOT_CONFIGURED, "message": SCRIPTED if observed.works else OF_WORKERS},
        **{name: _dependency(state) for name, state in observed.dependencies.items()},
        "queue_depth": _queue(observed.depth),
        "error_rate": _figure(observed.figures.error_rate, MOST_ERRORS, observed.figures.messages),
        "latency_p99_seconds": _figure(observed.figures.latency_p99, LONGEST_P99, observed.figures.messages),
    }
    wrong = [name for name, component in components.items() if component["status"] == Overall.UNHEALTHY]
    overall = Overall.HEALTHY
    if wrong:
        overall = Overall.UNHEALTHY if {"api", DATABASE} & set(wrong) else Overall.DEGRADED
    return Report(overall, [f"{name}: {components[name]['message']}" for name in wrong], components, observed)


def _component(*, well: bool, message: str, **more: Any) -> dict[str, Any]:
    return {"status": Overall.HEALTHY if well else Overall.UNHEALTHY, "message": message, **more}


def _api(readiness: Readiness) -> dict[str, Any]:
    problems = [problem for name, problem in readiness.problems.items() if problem and name != DATABASE]
    return _component(well=not problems, message="; ".join(problems) or "ok")


def _dependency(state: State) -> dict[str, Any]:
    times = {"since": state.since, "checked_at": state.checked_at}
    if state.healthy is None:
        return {"status": "unknown", "message": state.problem or "not looked at yet", **times}
    return _component(well=state.healthy, message=state.problem or "ok", **times)


def _queue(depth: int | None) -> dict[str, Any]:
    facts = {"value": depth, "limit": MOST_QUEUED}
    if depth is None:
        return {"status": "unknown", "message": "the database does not tell", **facts}
    well = depth < MOST_QUEUED
    return _component(well=well, message="ok" if well else f"{depth} messages wait for a worker", **facts)


def _figure(value: float | None, limit: float, messages: int) -> dict[str, Any]:
    facts = {"value": value, "limit": limit, "messages": messages, "window_seconds": WINDOW_SECONDS}
    if value is None or messages < LEAST_MESSAGES:
        return _component(well=True, message="too few messages to judge by", **facts)
    well = value <= limit
    return _component(well=well, message="ok" if well else f"{value:.3g} is above {limit:g}", **facts)
