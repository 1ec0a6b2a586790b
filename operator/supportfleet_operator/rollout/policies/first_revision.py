"""The first revision has nothing to be compared with: it becomes the stable one as soon as all of its pods are ready.

Nothing can be rolled back to, so at the deadline it is only said; the pods may still get ready, or the spec change.
"""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import begin, complete, discard, enter
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import past_deadline


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Bring the first revision up."""
    if state.stable is not None:
        return None
    if state.canary is not None and state.canary != inputs.target:
        return discard(state, inputs, "Idle", reasons.SUPERSEDED, f"the spec asks for {inputs.target} instead")
    if state.canary is None or state.phase != "Starting":
        return begin(state, inputs, inputs.target, reasons.FIRST_REVISION, "the first revision's pods come up")
    view = inputs.view(state.canary)
    if view.ready >= inputs.replicas_needed:
        return complete(state, inputs, state.canary, reasons.STABLE, f"{state.canary} is the stable revision")
    if past_deadline(state, inputs) and state.reason != reasons.PROGRESS_DEADLINE_EXCEEDED:
        return enter(state, inputs, "Starting", reasons.PROGRESS_DEADLINE_EXCEEDED, _late(inputs, view.problem))
    return state


def _late(inputs: Inputs, problem: str | None) -> str:
    message = f"the first revision's pods were not ready within {inputs.rollout.progress_deadline_seconds} s"
    return f"{message}: {problem}" if problem else f"{message}: change the spec, or see the pods' events"
