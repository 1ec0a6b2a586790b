"""A revision without traffic gives its pods back once nothing is likely to need them."""

from dataclasses import replace

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Forget those whose delay has passed: what isn't remembered has no pods."""
    delay = inputs.rollout.scale_down_delay_seconds
    kept = {name: at for name, at in state.retiring.items() if (inputs.now - at).total_seconds() < delay}
    return replace(state, retiring=kept) if len(kept) != len(state.retiring) else None
