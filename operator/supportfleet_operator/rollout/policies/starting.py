"""A canary's pods come up, for the first time or again."""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.capacity import reached, wanted_pods
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import to_step
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Go on with the step, at the weight that it had, once the pods for that and for the next are ready."""
    if state.phase != "Starting":
        return None
    if inputs.view(state.canary).ready < max(1, wanted_pods(state, inputs)):
        return state
    ready = to_step(state, inputs, state.step, reasons.STEPPING, f"the pods of {state.canary} are ready")
    return replace(ready, weight=state.weight or reached(state, inputs))
