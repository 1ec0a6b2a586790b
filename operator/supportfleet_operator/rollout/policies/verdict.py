"""What the newest measurement means: too few samples mean nothing, and too many failures a rollback."""

from dataclasses import replace

from supportfleet_operator.api import AnalysisOutcome
from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import abort, can_take_over, not_yet
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import measures


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Roll back at the failure limit, as long as stable can take the traffic."""
    if not measures(state, inputs) or inputs.rollout.analysis is None:
        return None
    if state.analysis_failures < inputs.rollout.analysis.failure_limit:
        return None
    if can_take_over(state, inputs):
        return abort(state, inputs, reasons.ANALYSIS_FAILED, _failure(state))
    return not_yet(state, inputs, reasons.STABLE_NOT_READY, _figures(state))


def remember(state: RolloutState, inputs: Inputs) -> RolloutState:
    """The state with what was measured of this canary in this step; the same one where that isn't new.

    It is no move: whatever follows from the figures does so in the same decision, however slowly decisions come.
    """
    result = inputs.analysis
    if result is None or (result.canary, result.step_started_at) != (state.canary, state.step_started_at):
        return state
    if not measures(state, inputs) or (state.last_analysis_at is not None and result.at <= state.last_analysis_at):
        return state
    return replace(
        state,
        last_analysis=result.outcomes,
        last_analysis_at=result.at,
        baseline=result.baseline,
        analysis_failures=state.analysis_failures + (result.verdict == "Fail"),
    )


def _failure(state: RolloutState) -> str:
    return f"{state.canary} was rolled back: {_figures(state)}; change the spec, or use retry"


def _figures(state: RolloutState) -> str:
    failed = [one for one in state.last_analysis if one.verdict == "Fail"]
    return (
        "; ".join(map(_figure, failed))
        or "there were no figures, which spec.rollout.analysis.onNoData counts as failed"
    )


def _figure(one: AnalysisOutcome) -> str:
    limit = "" if one.threshold is None else f", limit {one.threshold:.4g}"
    beside = "" if one.stable is None else f", stable {one.stable:.4g}"
    value = "unknown" if one.value is None else f"{one.value:.4g}"
    samples = "" if one.samples is None else f" ({one.samples} samples)"
    return f"{one.metric} is {value}{limit}{beside}{samples}"
