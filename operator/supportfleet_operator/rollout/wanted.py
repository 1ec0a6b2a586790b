"""Which revision the rollout is to end at."""

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState


def wanted(state: RolloutState, inputs: Inputs) -> str | None:
    """The spec's revision, unless it was rolled back or undone: then whatever there is."""
    if inputs.target == state.failed:
        return state.stable
    if inputs.target == state.undone:
        return state.canary or state.stable
    return inputs.target
