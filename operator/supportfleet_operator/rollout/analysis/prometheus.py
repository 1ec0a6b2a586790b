"""Figures from a Prometheus: what to ask it for a revision, and what its answer says.

Nothing here asks: ``queries`` gives the expressions, and ``answered`` reads the body of ``GET /api/v1/query``, as does
``unanswered`` where there is none. A figure is one number. Nothing at all (no series, NaN, infinity: what a division by
no requests gives) is no data. Everything else that is not one number is not known, which is never good and never bad.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal

from supportfleet_operator.api import PLACEHOLDERS, AnalysisMetric, Rollout
from supportfleet_operator.api.analysis import EACH_REVISION
from supportfleet_operator.rollout.analysis.figures import Figure
from supportfleet_operator.rollout.state import RolloutState

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
"""What Kubernetes allows as a name: nothing that ends a string or an expression in PromQL."""
LONGEST_NAME: Final = 253
LONGEST_MESSAGE: Final = 200

Side = Literal["canary", "stable"]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression to evaluate now."""

    metric: str
    """The name of the figure."""
    of: Side
    """Which of the two revisions it is about."""
    text: str
    """In PromQL, with no placeholders left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    value: float | None = None
    message: str = ""
    """Why there is no value."""
    unknown: bool = False
    """Nobody can tell, as opposed to: there is nothing."""

    def figure(self) -> Figure:
        """The same, as figures of any source are judged."""
        return Figure(self.value, None, message=self.message, unknown=self.unknown)


class PlaceholderError(ValueError):
    """A query with a placeholder that stands for nothing, or for nothing that may be put into a query."""


def queries(state: RolloutState, rollout: Rollout, agent: str, namespace: str) -> tuple[Query, ...]:
    """What to ask now. The first look at a canary asks nothing: its figures would be those of the time before."""
    if rollout.analysis is None or not state.baseline or state.canary is None or state.stable is None:
        return ()
    names = {"agent": agent, "namespace": namespace, "canary": state.canary, "stable": state.stable}
    wanted = [(metric, side) for metric in rollout.analysis.metrics for side in _sides(metric)]
    asked = (_query(metric, side, {**names, "revision": names[side]}) for metric, side in wanted)
    return tuple(query for query in asked if query is not None)


def substituted(text: str, names: Mapping[str, str]) -> str:
    """A query with its placeholders replaced; raises PlaceholderError rather than give something else."""
    for placeholder in PLACEHOLDERS:
        name = names[placeholder]
        if len(name) > LONGEST_NAME or NAME.fullmatch(name) is None:
            raise PlaceholderError(f"can't have {{{{{placeholder}}}}}: its value is no name")
        text = text.replace(f"{{{{{placeholder}}}}}", name)
    if "{{" in text:
        raise PlaceholderError(f"may have one of {', '.join(PLACEHOLDERS)} between {{{{ and }}}}, and nothing else")
    return text


def answered(body: str | bytes) -> Answer:
    """What Prometheus said: one number, nothing, or something that is no figure."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return unanswered("the answer is no JSON: is spec.rollout.analysis.prometheus.address a Prometheus?")
    if not isinstance(said, dict) or said.get("status") != "success":
        why = said.get("error") if isinstance(said, dict) else None
        return unanswered(f"Prometheus said: {why or 'no success'}")
    if said.get("warnings"):
        return unanswered(f"Prometheus warned that it may be incomplete: {said['warnings']}")
    data = said.get("data")
    if not isinstance(data, dict):
        return unanswered("Prometheus' answer has no data")
    return _result(data.get("resultType"), data.get("result"))


def unanswered(why: str) -> Answer:
    """There is no answer to go by."""
    return Answer(message=why[:LONGEST_MESSAGE], unknown=True)


def _sides(metric: AnalysisMetric) -> tuple[Side, ...]:
    """Which revisions a query is asked for: stable only where it is the measure, and the query tells them apart."""
    if metric.query is None:
        return ()
    compared = metric.max_increase_over_stable is not None and EACH_REVISION in metric.query
    return ("canary", "stable") if compared else ("canary",)


def _query(metric: AnalysisMetric, side: Side, names: Mapping[str, str]) -> Query | None:
    try:
        return Query(metric.name, side, substituted(metric.query or "", names))
    except PlaceholderError:
        return None  # admission refuses it; ``problem`` says so where it came in past that


def problem(metric: AnalysisMetric) -> str:
    """Why a query can't be asked; empty where it can."""
    try:
        substituted(metric.query or "", dict.fromkeys(PLACEHOLDERS, "name"))
    except PlaceholderError as error:
        return f"query {error}"
    return ""


def _result(kind: Any, result: Any) -> Answer:
    if kind == "scalar":
        return _number(result)
    if kind != "vector" or not isinstance(result, list):
        return unanswered(f"the query gives a {kind}: make it one number, such as with sum()")
    if not result:
        return Answer(message="the query gives no series")
    if len(result) > 1:
        return unanswered(f"the query gives {len(result)} series: make it one, such as with sum()")
    return _number(result[0].get("value") if isinstance(result[0], dict) else None)


def _number(sample: Any) -> Answer:
    """The value of ``[time, "value"]``."""
    try:
        _, text = sample
        value = float(text)
    except (TypeError, ValueError):
        return unanswered("the query gives no number")
    return Answer(value) if isfinite(value) else Answer(message=f"the query gives {value}")
