"""A revision without traffic gives its pods back once nothing is likely to need them.

Its conversations go before them: proxies learn of routes that are gone later than of pods that are, so its pods have
the whole delay from the moment that nothing is routed to them.
"""

from dataclasses import replace

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import retires_in


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Forget whose delay has passed: what isn't remembered has no pods."""
    due = {name for name in state.retiring if retires_in(state, inputs, name) <= 0}
    if not due:
        return None
    kept = {name: at for name, at in state.retiring.items() if name not in due}
    released = {name: inputs.now for name in state.sticky if name in due}
    return replace(state, retiring=kept | released, sticky=tuple(name for name in state.sticky if name not in due))
