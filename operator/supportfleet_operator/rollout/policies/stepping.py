"""One step after the other: a weight once its pods are ready, a pause once it is over, a verdict once it is there.

With an analysis set, a weight is left only after a measurement at that weight has passed.
"""

from __future__ import annotations

from dataclasses import replace

from supportfleet_operator.api import Pause, Step
from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.capacity import FULL, can_carry, is_undo, next_load, next_weight, step
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter, promoting, share, to_step, unmeasured
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import has_figures, pause_left


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Do what the step says, if its time has come."""
    if state.phase not in {"Stepping", "Paused"}:
        return None
    if state.reason in reasons.ENDED_BY_SPEC:
        return _again(state, inputs, f"the spec asks for {state.canary} again")
    now = step(state, inputs)
    if now is not None and now.pause is not None:
        return _pause(state, inputs, now.pause)
    return _move(state, inputs, now) if has_figures(state, inputs) else state


def _move(state: RolloutState, inputs: Inputs, now: Step | None) -> RolloutState:
    if now is None:
        return _after_the_last(state, inputs)
    if now.set_weight is not None:
        return _weight(state, inputs, now.set_weight)
    if now.set_mirror is not None:
        return _mirror(state, inputs, now.set_mirror)
    return _next(state, inputs, "the analysis passed")


def _after_the_last(state: RolloutState, inputs: Inputs) -> RolloutState:
    if inputs.rollout.strategy == "Rolling" and not is_undo(state):
        return _wave(state, inputs)
    message = f"all steps are done; {state.canary} gets all of the traffic once its pods are ready"
    return promoting(state, inputs, reasons.PROMOTING, message)


def _pause(state: RolloutState, inputs: Inputs, pause: Pause) -> RolloutState:
    left = pause_left(state, inputs)
    if left is not None and left <= 0:
        return _next(state, inputs, "the pause is over")
    if state.phase == "Paused":
        return state
    seconds = pause.duration_seconds
    message = "until somebody resumes or promotes" if seconds is None else f"for {seconds} s"
    return enter(state, inputs, "Paused", reasons.PAUSE_STEP, f"paused at {share(state.weight)} {message}")


def _weight(state: RolloutState, inputs: Inputs, weight: int) -> RolloutState:
    if not can_carry(state, inputs, next_load(state, inputs)):
        return enter(state, inputs, "Stepping", reasons.STEPPING, f"waiting for pods that can carry {share(weight)}")
    return replace(unmeasured(_next(state, inputs, f"{state.canary} gets {share(weight)}")), weight=weight)


def _mirror(state: RolloutState, inputs: Inputs, mirror: int) -> RolloutState:
    if not can_carry(state, inputs, next_load(state, inputs)):
        message = f"waiting for pods that can carry copies of {share(mirror)}"
        return enter(state, inputs, "Stepping", reasons.STEPPING, message)
    message = f"{state.canary} gets copies of {share(mirror)}" if mirror else f"{state.canary} gets no copies any more"
    return replace(unmeasured(_next(state, inputs, message)), mirror=mirror)


def _wave(state: RolloutState, inputs: Inputs) -> RolloutState:
    weight = next_weight(state, inputs)
    if weight is None or weight >= FULL:
        return promoting(state, inputs, reasons.PROMOTING, f"{state.canary} gets all of the traffic")
    if not can_carry(state, inputs, weight):
        return state
    return replace(_again(state, inputs, f"{state.canary} gets {share(weight)}"), weight=weight)


def _next(state: RolloutState, inputs: Inputs, why: str) -> RolloutState:
    return to_step(state, inputs, state.step + 1, reasons.STEPPING, why)


def _again(state: RolloutState, inputs: Inputs, why: str) -> RolloutState:
    return to_step(state, inputs, state.step, reasons.STEPPING, why)
