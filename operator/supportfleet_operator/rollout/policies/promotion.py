"""The last moves: all of the traffic, once the pods for it are ready, and then the name of the stable revision."""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.capacity import FULL, can_carry
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import complete
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Move everything to the canary; then make it the stable revision."""
    if state.phase != "Promoting" or state.canary is None:
        return None
    if not can_carry(state, inputs, FULL):
        return state
    if state.weight < FULL:
        return replace(state, weight=FULL)
    return complete(state, inputs, state.canary, reasons.PROMOTED, f"{state.canary} is the stable revision")
