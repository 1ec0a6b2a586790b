"""The spec asks for the stable revision again: that ends the rollout, from any state."""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import discard_if_safe, enter
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.wanted import wanted


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Give stable all of the traffic."""
    if wanted(state, inputs) != state.stable:
        return None
    if state.canary is None:
        held_back = state.reason == reasons.PAUSED_BY_SPEC
        return (
            enter(state, inputs, "Idle", reasons.STABLE, f"{state.stable} is the stable revision")
            if held_back
            else None
        )
    return discard_if_safe(state, inputs, "Idle", reasons.WENT_BACK, f"the spec asks for {state.stable} again")
