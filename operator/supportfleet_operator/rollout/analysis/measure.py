"""A measurement, from the pods' texts to the result that the decision looks at."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from supportfleet_operator.api import Analysis, AnalysisOutcome, MetricName, Rollout
from supportfleet_operator.rollout.analysis.figures import figure
from supportfleet_operator.rollout.analysis.reading import read
from supportfleet_operator.rollout.analysis.verdict import judge, overall
from supportfleet_operator.rollout.analysis.window import CANARY, STABLE, Counters, Window, advance, renewed
from supportfleet_operator.rollout.inputs import AnalysisResult
from supportfleet_operator.rollout.state import RolloutState

Texts = Mapping[str, Mapping[str, str]]
"""What pods said, by revision and pod."""


def scraped(state: RolloutState) -> tuple[str, ...]:
    """The revisions whose pods are to be asked."""
    return tuple(name for name in (state.stable, state.canary) if name)


def analyse(state: RolloutState, rollout: Rollout, texts: Texts, now: dt.datetime) -> AnalysisResult:
    """Add what the pods counted to the measurement, and judge it once there is enough."""
    analysis = rollout.analysis
    if analysis is None:
        raise ValueError("there is no analysis to make")
    window = advance(state.baseline, _readings(texts, state.canary), _readings(texts, state.stable))
    outcomes = tuple(_outcomes(analysis, state, window)) if state.baseline else _begun(analysis, state)
    verdict = overall(outcomes, analysis)
    return AnalysisResult(
        at=now,
        canary=state.canary,
        step_started_at=state.step_started_at,
        outcomes=outcomes,
        verdict=verdict,
        baseline=renewed(window) if verdict in {"Pass", "Fail"} else window,
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


def _outcomes(analysis: Analysis, state: RolloutState, window: Window) -> list[AnalysisOutcome]:
    outcomes = []
    for metric in analysis.metrics:
        beside = figure(metric.name, window.get(STABLE, {}))
        enough = beside.samples >= analysis.min_samples and not beside.at_least
        stable = beside.value if enough else _last_stable(state, metric.name)
        outcomes.append(judge(metric, figure(metric.name, window.get(CANARY, {})), stable, analysis.min_samples))
    return outcomes


def _last_stable(state: RolloutState, name: MetricName) -> float | None:
    """How stable did earlier in this rollout: with all of its traffic gone there is nothing newer."""
    return next((one.stable for one in state.last_analysis if one.metric == name), None)
