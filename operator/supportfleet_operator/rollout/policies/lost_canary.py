"""No pod of a canary with traffic is ready any more: stable takes it over until the canary is back.

That isn't a rollback: pods vanish with spot nodes. The deadline of ``Starting`` makes it one.
"""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter, unmeasured
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Take the traffic from a canary with no ready pods."""
    if state.canary is None or state.weight == 0 or inputs.view(state.canary).ready > 0:
        return None
    lost = replace(unmeasured(state), weight=0)
    return enter(lost, inputs, "Starting", reasons.CANARY_LOST, f"no pod of {state.canary} is ready any more")
