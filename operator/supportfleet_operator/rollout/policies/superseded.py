"""The spec asks for yet another revision: the canary makes way, and the new one starts at the first step."""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import discard_if_safe
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.wanted import wanted


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Discard a canary that isn't wanted any more."""
    if state.canary is None or wanted(state, inputs) == state.canary:
        return None
    message = f"the spec asks for {inputs.target} instead of {state.canary}"
    return discard_if_safe(state, inputs, "Idle", reasons.SUPERSEDED, message)
