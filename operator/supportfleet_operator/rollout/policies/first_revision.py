"""The first revision has nothing to be compared with: it becomes the stable one as soon as all of its pods are ready.

Where the spec asks for a checklist it has to pass that first. Nothing can be rolled back to, so at the deadline, and
when the checklist fails, it is only said; the pods may still get ready, or the spec change.
"""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.admission import is_admitted, late, pending, refusal, waits_for_checklist
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import begin, complete, discard, enter
from supportfleet_operator.rollout.policies import action
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
    if why := refusal(state, inputs):
        message = f"{state.canary} failed its checklist, so it gets no traffic: {why}; change the spec, or use retry"
        return action.check(state, inputs) or enter(state, inputs, "Starting", reasons.CHECKLIST_FAILED, message)
    if inputs.view(state.canary).ready >= inputs.replicas_needed and is_admitted(state, inputs):
        return complete(state, inputs, state.canary, reasons.STABLE, f"{state.canary} is the stable revision")
    return _wait(state, inputs)


def _wait(state: RolloutState, inputs: Inputs) -> RolloutState:
    """Say what is waited for, and once that it takes too long."""
    unchecked = waits_for_checklist(state, inputs)
    if state.reason == reasons.PROGRESS_DEADLINE_EXCEEDED:
        return state
    if past_deadline(state, inputs):
        message = late(state, inputs) if unchecked else _late(inputs, inputs.view(state.canary).problem)
        return enter(state, inputs, "Starting", reasons.PROGRESS_DEADLINE_EXCEEDED, message)
    if unchecked:
        return enter(state, inputs, "Starting", reasons.AWAITING_CHECKLIST, pending(state, inputs))
    return state


def _late(inputs: Inputs, problem: str | None) -> str:
    message = f"the first revision's pods were not ready within {inputs.rollout.progress_deadline_seconds} s"
    return f"{message}: {problem}" if problem else f"{message}: change the spec, or see the pods' events"
