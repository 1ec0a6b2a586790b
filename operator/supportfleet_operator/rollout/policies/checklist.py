"""A canary that fails its checklist is rolled back before it answered anybody."""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.admission import is_admitted, pending, refusal
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import abort, enter
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Roll back what failed; bring back to the start what the spec wants checked only now."""
    if is_admitted(state, inputs):
        return None
    if why := refusal(state, inputs):
        message = f"{state.canary} was rolled back: it failed its checklist: {why}; change the spec, or use retry"
        return abort(state, inputs, reasons.CHECKLIST_FAILED, message)
    if state.phase != "Starting":
        return enter(state, inputs, "Starting", reasons.AWAITING_CHECKLIST, pending(state, inputs))
    return None
