"""A suspended agent has no pods, so nothing can be tried: a rollout begins again once the agent is back."""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.capacity import is_undo
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import discard
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Drop the canary, and wait."""
    if not inputs.suspended:
        return None
    if state.canary is not None:
        dropped = discard(
            state, inputs, "Idle", reasons.SUSPENDED, "spec.suspend is set: the rollout begins again after"
        )
        return replace(dropped, undone=None) if is_undo(dropped) else dropped
    return replace(state, retiring={}, sticky=())
