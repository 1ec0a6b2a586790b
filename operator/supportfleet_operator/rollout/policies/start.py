"""The spec asks for another revision than the stable one."""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import begin, complete
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.wanted import wanted


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Begin a rollout, unless the spec holds it; with no pods there is no traffic to try it on."""
    target = wanted(state, inputs)
    if target is None or target == state.stable:
        return None
    held = inputs.rollout.paused or state.reason == reasons.PAUSED_BY_ACTION
    if inputs.replicas_needed == 0 and not held:
        message = f"{target} took over at once: there are no replicas to try it on"
        return complete(state, inputs, target, reasons.NO_PODS_WANTED, message)
    if state.canary is not None:
        return None
    if inputs.rollout.paused:
        return replace(
            state, phase="Idle", reason=reasons.PAUSED_BY_SPEC, message=f"spec.rollout.paused holds {target} back"
        )
    return begin(state, inputs, target, reasons.NEW_REVISION, f"the pods of {target} come up")
