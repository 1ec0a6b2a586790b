"""A rollback is over once the failed revision's pods have been given back."""

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Say that it is over, and still why."""
    if state.phase != "Aborting" or state.failed in state.retiring:
        return None
    return enter(state, inputs, "RolledBack", state.reason, state.message)
