"""Whether a figure is within its limits, and what all of them mean together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from supportfleet_operator.api import Analysis, AnalysisMetric, AnalysisOutcome, Verdict
from supportfleet_operator.rollout.analysis.figures import Figure

ROUNDING: Final = 1e-9
"""A figure at its limit passes, whatever the last bits of a division are."""


def judge(metric: AnalysisMetric, canary: Figure, stable: float | None, min_samples: int) -> AnalysisOutcome:
    """One figure's outcome; ``stable`` is that of the stable revision, where it is known."""
    limit, verdict = _against_limits(metric, canary, stable)
    message = canary.message
    if canary.value is None or canary.samples == 0:
        verdict = "Inconclusive" if canary.unknown else "NoData"
    elif not canary.is_enough(min_samples):
        verdict = "Inconclusive"
    elif verdict == "Inconclusive" and lacks_stable(metric, stable):
        message = "has no figure of the stable revision to compare with"
    return AnalysisOutcome(
        metric=metric.name,
        value=canary.value,
        threshold=limit,
        stable=stable,
        samples=canary.samples,
        verdict=verdict,
        message=message or None,
    )


def lacks_stable(metric: AnalysisMetric, stable: float | None) -> bool:
    """Whether a figure is to be compared with one that there isn't."""
    return metric.max_increase_over_stable is not None and stable is None


def overall(outcomes: Iterable[AnalysisOutcome], analysis: Analysis) -> Verdict:
    """The measurement's verdict: one failure fails it, and one doubt keeps it from passing."""
    no_data: Verdict = "NoData" if analysis.on_no_data == "Pause" else analysis.on_no_data
    verdicts = {no_data if one.verdict == "NoData" else one.verdict for one in outcomes}
    if "Fail" in verdicts:
        return "Fail"
    if "Inconclusive" in verdicts or not verdicts:
        return "Inconclusive"
    return "NoData" if "NoData" in verdicts else "Pass"


def _against_limits(metric: AnalysisMetric, canary: Figure, stable: float | None) -> tuple[float | None, Verdict]:
    """The limit that decided and what it says, as far as it can be told."""
    increase = metric.max_increase_over_stable
    beside = stable + increase if stable is not None and increase is not None else None
    highest = min((limit for limit in (metric.max, beside) if limit is not None), default=None)
    value = canary.value
    if value is None:
        return highest if highest is not None else metric.min, "NoData"
    if highest is not None and value > highest + ROUNDING:
        return highest, "Fail"
    if metric.min is not None and value < metric.min - ROUNDING and not canary.at_least:
        return metric.min, "Fail"
    unknown = lacks_stable(metric, stable) or (canary.at_least and metric.max is not None)
    doubtful = unknown or (canary.at_least and (highest is not None or value < (metric.min or 0.0)))
    return highest if highest is not None else metric.min, "Inconclusive" if doubtful else "Pass"
