"""What a person asked for: carried out once, and only on the revision that it was meant for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from supportfleet_operator.rollout import actions, reasons
from supportfleet_operator.rollout.admission import is_admitted
from supportfleet_operator.rollout.capacity import FULL, can_carry, step, steps
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import abort, begin, can_take_over, enter, promoting, to_step
from supportfleet_operator.rollout.policies import starting
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Carry an action out, and remember its id; one that means nothing here is only remembered."""
    if inputs.action is None or inputs.action.id == state.last_action_id:
        return None
    after = outcome(state, inputs)
    return replace(state if isinstance(after, str) else after, last_action_id=inputs.action.id)


def outcome(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    """The state after the action, or why it means nothing here."""
    action = inputs.action
    act = _ACTIONS.get(action.name) if action else None
    if action is None or act is None:
        return f"there is no such action: use one of {', '.join(sorted(_ACTIONS))}"
    meant = {actions.UNDO: state.stable, actions.RETRY: inputs.target}.get(action.name, state.canary)
    if action.revision != meant:
        return (
            f"it is meant for revision {action.revision or '(none)'}, which is not the one at hand ({meant or 'none'})"
        )
    return act(state, inputs)


def _promote(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.stable is None:
        return "the first revision takes over as soon as it is ready"
    if not is_admitted(state, inputs):
        return f"{state.canary} has not passed spec.rollout.checklist: wait for it, or take it out of the spec"
    message = f"{state.canary} gets all of the traffic once its pods are ready: promoted by a person"
    return promoting(state, inputs, reasons.PROMOTED_BY_ACTION, message, step=len(steps(state, inputs)))


def _abort(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.stable is None:
        return "there is no stable revision to go back to: change the spec"
    if not can_take_over(state, inputs):
        return f"no pod of {state.stable} is ready to take over"
    return abort(state, inputs, reasons.ABORTED_BY_ACTION, f"{state.canary} was rolled back by a person")


def _pause(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.stable is None:
        return "the first revision takes over as soon as it is ready"
    return enter(state, inputs, "Paused", reasons.PAUSED_BY_ACTION, "paused by a person, until resume")


def _resume(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.phase != "Paused":
        return "nothing is paused"
    if state.reason == reasons.PAUSED_BY_ACTION:
        return starting.resume(state, inputs, "resumed by a person")
    now = step(state, inputs)
    if now is None or now.pause is None or state.reason != reasons.PAUSE_STEP:
        return "it waits for something else than a person: use promote or abort"
    return to_step(state, inputs, state.step + 1, reasons.RESUMED, "resumed by a person")


def _retry(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.stable is None and state.reason == reasons.CHECKLIST_FAILED:
        return begin(state, inputs, inputs.target, reasons.FIRST_REVISION, f"{inputs.target} is tried again")
    if state.canary is not None or inputs.target not in {state.failed, state.undone}:
        return f"{inputs.target} was not rolled back"
    message = f"{inputs.target} is tried again"
    again = replace(state, failed=None, undone=None)
    return begin(again, inputs, inputs.target, reasons.NEW_REVISION, message)


def _undo(state: RolloutState, inputs: Inputs) -> RolloutState | str:
    if state.canary is not None or inputs.target != state.stable:
        return "the spec asks for another revision than the stable one: abort, or change the spec"
    before = state.previous
    if before is None or before == state.stable or before not in inputs.revisions:
        return "there is no revision before this one"
    message = f"going back to {before}: asked for by a person"
    undoing = begin(replace(state, undone=state.stable), inputs, before, reasons.UNDOING, message)
    if not can_carry(undoing, inputs, FULL):
        return undoing
    return promoting(undoing, inputs, reasons.UNDOING, message, weight=FULL)


_ACTIONS: Final[Mapping[str, Callable[[RolloutState, Inputs], RolloutState | str]]] = MappingProxyType(
    {
        actions.PROMOTE: _promote,
        actions.ABORT: _abort,
        actions.PAUSE: _pause,
        actions.RESUME: _resume,
        actions.RETRY: _retry,
        actions.UNDO: _undo,
    }
)
