"""A person holds the rollout, by the spec or by an action: nothing moves, forward or back."""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.capacity import is_undo
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter
from supportfleet_operator.rollout.policies import starting
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Stay as it is; once the spec holds it no longer, go on from where it was. An undo is a person's, and goes on."""
    if state.canary is None:
        return None
    paused = state.phase == "Paused"
    if paused and state.reason == reasons.PAUSED_BY_ACTION:
        return state
    if inputs.rollout.paused and not is_undo(state):
        if paused and state.reason == reasons.PAUSED_BY_SPEC:
            return state
        return enter(state, inputs, "Paused", reasons.PAUSED_BY_SPEC, "spec.rollout.paused is set")
    if paused and state.reason == reasons.PAUSED_BY_SPEC:
        return starting.resume(state, inputs, "spec.rollout.paused is not set any more")
    return None
