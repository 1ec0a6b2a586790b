"""A revision without traffic gives its pods back once nothing is likely to need them."""

from dataclasses import replace

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import retires_in


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Forget those whose delay has passed: what isn't remembered has no pods, and no conversations."""
    kept = {name: at for name, at in state.retiring.items() if retires_in(state, inputs, name) > 0}
    if len(kept) == len(state.retiring):
        return None
    return replace(state, retiring=kept, sticky=tuple(name for name in state.sticky if name in kept))
