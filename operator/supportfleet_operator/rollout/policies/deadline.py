"""Pods that don't get ready in time, in any phase, mean a rollback; figures that don't come in time mean a stop.

A checklist that isn't passed in time is like pods that aren't ready.
"""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.admission import late, waits_for_checklist
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import abort, can_take_over, enter, not_yet
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import past_deadline, waits_for


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Give up on pods; go on waiting for figures, but say so."""
    if state.canary is None:
        return None
    if (state.phase, state.reason) == ("Paused", reasons.STABLE_NOT_READY):
        return _give_up(state, inputs)
    if not past_deadline(state, inputs):
        return None
    seconds = inputs.rollout.progress_deadline_seconds
    match waits_for(state, inputs):
        case "pods" | "checklist" if state.phase != "Paused":
            return _give_up(state, inputs)
        case "figures" if state.phase != "Paused":
            message = f"no verdict within {seconds} s{_why(state)}: send traffic, or promote or abort"
            return enter(state, inputs, "Paused", reasons.AWAITING_ANALYSIS, message)
        case _:
            return None


def _give_up(state: RolloutState, inputs: Inputs) -> RolloutState:
    if waits_for_checklist(state, inputs):
        return abort(state, inputs, reasons.PROGRESS_DEADLINE_EXCEEDED, late(state, inputs))
    problem = inputs.view(state.canary).problem
    message = f"the pods of {state.canary} were not ready within {inputs.rollout.progress_deadline_seconds} s"
    if not can_take_over(state, inputs):
        return not_yet(state, inputs, reasons.STABLE_NOT_READY, message)
    return abort(state, inputs, reasons.PROGRESS_DEADLINE_EXCEEDED, f"{message}: {problem}" if problem else message)


def _why(state: RolloutState) -> str:
    """What the figures lack."""
    missing = [
        f"{one.metric} {one.message or f'has too few samples ({one.samples or 0})'}"
        for one in state.last_analysis
        if one.verdict in {"NoData", "Inconclusive"}
    ]
    return f" ({'; '.join(missing)})" if missing else ""
