"""A canary's pods come up, for the first time or again.

Once they are there, a first step is made in the same decision, so that the first traffic waits for nothing else. A
canary that had traffic before gets that back first, and nothing more with it.
"""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.admission import is_admitted, pending, waits_for_checklist
from supportfleet_operator.rollout.capacity import has_pods, mirrored, reached
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter, to_step
from supportfleet_operator.rollout.policies import stepping
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Go on with the step once the pods for its weight and for the next are ready."""
    if state.phase != "Starting":
        return None
    if waits_for_checklist(state, inputs):
        return enter(state, inputs, "Starting", reasons.AWAITING_CHECKLIST, pending(state, inputs))
    return _go_on(state, inputs, reasons.STEPPING, f"the pods of {state.canary} are ready") or state


def resume(state: RolloutState, inputs: Inputs, message: str) -> RolloutState:
    """Go on after a person's pause, from where it was; where pods are gone by now, once they are back."""
    resumed = _go_on(state, inputs, reasons.RESUMED, message)
    return resumed or enter(state, inputs, "Starting", reasons.RESUMED, message)


def _go_on(state: RolloutState, inputs: Inputs, reason: str, message: str) -> RolloutState | None:
    """The step over again, at the weight that it had; None while it lacks pods, or has yet to pass its checklist."""
    if not (has_pods(state, inputs) and is_admitted(state, inputs)):
        return None
    ready = to_step(state, inputs, state.step, reason, message)
    again = replace(ready, weight=state.weight or reached(state, inputs), mirror=mirrored(state, inputs))
    had_traffic = again.weight > 0 or again.mirror > 0
    return again if had_traffic else stepping.check(again, inputs)
