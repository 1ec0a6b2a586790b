"""A measurement, from what pods and Prometheus say to the result that the decision looks at."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from supportfleet_operator.api import Analysis, AnalysisMetric, AnalysisOutcome, Rollout
from supportfleet_operator.rollout.analysis.figures import Figure, figure
from supportfleet_operator.rollout.analysis.prometheus import Answer, Query, Side, problem
from supportfleet_operator.rollout.analysis.reading import read
from supportfleet_operator.rollout.analysis.verdict import judge, lacks_stable, overall
from supportfleet_operator.rollout.analysis.window import CANARY, STABLE, Counters, Window, advance, renewed
from supportfleet_operator.rollout.inputs import AnalysisResult
from supportfleet_operator.rollout.state import RolloutState

Texts = Mapping[str, Mapping[str, str]]
"""What pods said, by revision and pod."""
Answers = Mapping[Query, Answer]
NO_ANSWERS: Final[Answers] = MappingProxyType({})
WINDOWS: Final[Mapping[Side, str]] = MappingProxyType({"canary": CANARY, "stable": STABLE})


def scraped(state: RolloutState, rollout: Rollout) -> tuple[str, ...]:
    """The revisions whose pods are to be asked; none where every figure is Prometheus'."""
    if rollout.analysis is None or all(metric.built_in is None for metric in rollout.analysis.metrics):
        return ()
    return tuple(name for name in (state.stable, state.canary) if name)


def analyse(
    state: RolloutState, rollout: Rollout, texts: Texts, now: dt.datetime, answers: Answers = NO_ANSWERS
) -> AnalysisResult:
    """Add what the pods counted to the measurement, and judge it once there is enough."""
    analysis = rollout.analysis
    if analysis is None:
        raise ValueError("there is no analysis to make")
    window = advance(state.baseline, _readings(texts, state.canary), _readings(texts, state.stable))
    outcomes = tuple(_outcomes(analysis, state, window, answers)) if state.baseline else _begun(analysis, state)
    verdict = overall(outcomes, analysis)
    is_over = verdict in {"Pass", "Fail"} or _has_judged_pods(analysis, outcomes)
    return AnalysisResult(
        at=now,
        canary=state.canary,
        step_started_at=state.step_started_at,
        outcomes=outcomes,
        verdict=verdict,
        baseline=renewed(window) if is_over else window,
    )


def _has_judged_pods(analysis: Analysis, outcomes: tuple[AnalysisOutcome, ...]) -> bool:
    """Whether more samples would change nothing about the pods' figures, whatever else keeps a verdict away.

    A measurement that waited for a Prometheus to come back would otherwise hide an hour's last minutes in the hour.
    """
    of_pods = [
        (metric, one)
        for metric, one in zip(analysis.metrics, outcomes, strict=True)
        if metric.built_in is not None and one.value is not None
    ]
    return bool(of_pods) and not any(
        (one.samples or 0) < analysis.min_samples or lacks_stable(metric, one.stable) for metric, one in of_pods
    )


def _readings(texts: Texts, revision: str | None) -> Mapping[str, Counters]:
    read_ = {pod: read(text) for pod, text in texts.get(revision or "", {}).items()}
    return {pod: counters for pod, counters in read_.items() if counters is not None}


def _begun(analysis: Analysis, state: RolloutState) -> tuple[AnalysisOutcome, ...]:
    """The first look only begins the measurement."""
    return tuple(
        AnalysisOutcome(metric=one.name, stable=_last_stable(state, one.name), samples=0, verdict="Inconclusive")
        for one in analysis.metrics
    )


def _outcomes(analysis: Analysis, state: RolloutState, window: Window, answers: Answers) -> list[AnalysisOutcome]:
    told = {(query.metric, query.of): answer for query, answer in answers.items()}

    def figure_of(metric: AnalysisMetric, side: Side) -> Figure:
        if metric.built_in is not None:
            return figure(metric.built_in, window.get(WINDOWS[side], {}))
        return told.get((metric.name, side), _not_asked(metric)).figure()

    outcomes = []
    for metric in analysis.metrics:
        beside = figure_of(metric, "stable")
        enough = beside.is_enough(analysis.min_samples) and not beside.at_least
        stable = beside.value if enough else _last_stable(state, metric.name)
        outcomes.append(judge(metric, figure_of(metric, "canary"), stable, analysis.min_samples))
    return outcomes


def _not_asked(metric: AnalysisMetric) -> Answer:
    return Answer(message=problem(metric) or "was not asked", unknown=True)


def _last_stable(state: RolloutState, name: str) -> float | None:
    """How stable did earlier in this rollout: with all of its traffic gone there is nothing newer."""
    return next((one.stable for one in state.last_analysis if one.metric == name), None)
