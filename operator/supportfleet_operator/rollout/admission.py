"""Whether a canary may have traffic: only once it has passed its checklist, where the spec asks for one.

That it has is remembered, so a Job that is gone later takes nothing back. A canary that had traffic before the spec
asked for a checklist keeps it; an undo needs no checking, as it needs no trying; and where there are no pods at all,
there is nothing to check.
"""

from __future__ import annotations

from dataclasses import replace

from supportfleet_operator.rollout.capacity import has_pods, is_undo
from supportfleet_operator.rollout.inputs import ChecklistResult, Inputs
from supportfleet_operator.rollout.state import RolloutState


def is_unchecked(state: RolloutState) -> bool:
    """Whether there is a canary that has neither passed a checklist nor had traffic."""
    if state.canary is None or state.canary == state.checked or is_undo(state):
        return False
    return state.step == 0 and state.weight == 0 and state.mirror == 0


def is_admitted(state: RolloutState, inputs: Inputs) -> bool:
    """Whether nothing but pods and figures stands between the canary and its traffic."""
    return inputs.rollout.checklist is None or inputs.replicas_needed == 0 or not is_unchecked(state)


def waits_for_checklist(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the checklist is all that a canary with ready pods lacks."""
    return not is_admitted(state, inputs) and has_pods(state, inputs)


def refusal(state: RolloutState, inputs: Inputs) -> str | None:
    """Why the canary must not have traffic, where its checklist failed."""
    result = _result(state, inputs)
    if is_admitted(state, inputs) or result is None or result.verdict != "Failed":
        return None
    return result.message


def pending(state: RolloutState, inputs: Inputs) -> str:
    """What is waited for."""
    return f"{state.canary} gets no traffic before it has passed spec.rollout.checklist{_so_far(state, inputs)}"


def late(state: RolloutState, inputs: Inputs) -> str:
    """That it did not pass in time."""
    seconds = inputs.rollout.progress_deadline_seconds
    return f"{state.canary} did not pass spec.rollout.checklist within {seconds} s{_so_far(state, inputs)}"


def remember(state: RolloutState, inputs: Inputs) -> RolloutState:
    """The state with a checklist that passed; what follows from that does so in the same decision."""
    result = _result(state, inputs)
    if is_admitted(state, inputs) or result is None or result.verdict != "Passed":
        return state
    return replace(state, checked=state.canary)


def _so_far(state: RolloutState, inputs: Inputs) -> str:
    result = _result(state, inputs)
    return f": {result.message}" if result and result.message else ""


def _result(state: RolloutState, inputs: Inputs) -> ChecklistResult | None:
    result = inputs.checklist
    return result if result is not None and result.revision == state.canary else None
