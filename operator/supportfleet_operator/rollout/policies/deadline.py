"""Pods that don't get ready in time, in any phase, mean a rollback; figures that don't come in time mean a stop."""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import abort, enter
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import past_deadline, waits_for


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Give up on pods; go on waiting for figures, but say so."""
    if state.canary is None or not past_deadline(state, inputs):
        return None
    seconds = inputs.rollout.progress_deadline_seconds
    match waits_for(state, inputs):
        case "pods" if state.phase != "Paused":
            problem = inputs.view(state.canary).problem
            message = f"the pods of {state.canary} were not ready within {seconds} s" + (
                f": {problem}" if problem else ""
            )
            return abort(state, inputs, reasons.PROGRESS_DEADLINE_EXCEEDED, message)
        case "figures" if state.phase != "Paused":
            message = f"too few samples within {seconds} s for a verdict: send traffic, or promote or abort"
            return enter(state, inputs, "Paused", reasons.AWAITING_ANALYSIS, message)
        case _:
            return None
