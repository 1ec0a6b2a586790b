"""What a rollout waits for, and for how long: the same answers for who decides and for who calls again."""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

from supportfleet_operator.api import Analysis
from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.admission import is_admitted
from supportfleet_operator.rollout.analysis.verdict import overall
from supportfleet_operator.rollout.capacity import can_carry, has_pods, is_undo, next_load, step
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState

SOON: Final = 1.0
"""Seconds until a measurement that is due and was not made is asked for again."""
GATHERING: Final = 0.2
"""Of the interval: how long until a measurement that has samples, but too few, is looked at again."""


def measures(state: RolloutState, inputs: Inputs) -> bool:
    """Whether figures matter now: there is a canary that may have traffic, and no person's word outranks them."""
    if inputs.rollout.analysis is None or state.canary is None or state.stable is None or inputs.suspended:
        return False
    if inputs.rollout.paused or is_undo(state) or state.phase == "Starting":
        return False
    if state.reason in reasons.HELD_BY_PERSON or state.reason == reasons.PROMOTED_BY_ACTION:
        return False
    return must_pass(state, inputs) or inputs.rollout.match is not None


def must_pass(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the rollout may go on from here only with figures that passed.

    It may without where the canary has had no requests but those that choose it: too few might ever come. An ABTest is
    about just those.
    """
    now = step(state, inputs)
    waits = now is not None and now.analysis is not None
    return waits or state.weight > 0 or state.mirror > 0 or inputs.rollout.strategy == "ABTest"


def has_figures(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the analysis lets the rollout leave this step: it passed here, or doesn't matter here."""
    if inputs.rollout.analysis is None or is_undo(state) or not must_pass(state, inputs):
        return True
    return state.last_analysis_at is not None and overall(state.last_analysis, inputs.rollout.analysis) == "Pass"


def waits_for(state: RolloutState, inputs: Inputs) -> Literal["pods", "checklist", "figures", "time", "nothing"]:
    """What the rollout's next move lacks: pods that are ready, and figures that passed, are not waited for."""
    if state.phase == "Starting":
        if not has_pods(state, inputs):
            return "pods"
        return "nothing" if is_admitted(state, inputs) else "checklist"
    if state.phase in {"Stepping", "Paused"}:
        now = step(state, inputs)
        if now is not None and now.pause is not None:
            return "time"
        if not has_figures(state, inputs):
            return "figures"
    elif state.phase != "Promoting":
        return "nothing"
    return "nothing" if can_carry(state, inputs, next_load(state, inputs)) else "pods"


def past_deadline(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the phase, or the step, has taken longer than it may."""
    return _deadline_left(state, inputs) <= 0


def pause_left(state: RolloutState, inputs: Inputs) -> float | None:
    """Seconds until the pause of this step is over; None where only a person ends it."""
    now = step(state, inputs)
    if now is None or now.pause is None or now.pause.duration_seconds is None:
        return None
    return now.pause.duration_seconds - _age(state.step_started_at, inputs.now)


def due(state: RolloutState, inputs: Inputs) -> float | None:
    """Seconds until the pods are to be measured; None where nobody wants to know."""
    if not measures(state, inputs) or inputs.rollout.analysis is None:
        return None
    if state.last_analysis_at is None:
        return 0.0
    return _between(state, inputs.rollout.analysis) - _age(state.last_analysis_at, inputs.now)


def _between(state: RolloutState, analysis: Analysis) -> float:
    """Seconds from one look to the next: fewer while samples come in, as there may be enough at any moment.

    Else a canary that errs from its first request on would have one more interval to do so.
    """
    gathers = any(0 < (one.samples or 0) < analysis.min_samples for one in state.last_analysis)
    return max(SOON, analysis.interval_seconds * GATHERING) if gathers else analysis.interval_seconds


def next_look(state: RolloutState, inputs: Inputs) -> float | None:
    """Seconds until time alone may change something; None where it can't."""
    delay = inputs.rollout.scale_down_delay_seconds
    waits = [delay - _age(at, inputs.now) for at in state.retiring.values()]
    waits += [retires_in(state, inputs, name) for name in state.retiring]
    measured = due(state, inputs)
    if measured is not None:
        waits.append(measured if measured > 0 else SOON)
    held = state.reason in reasons.HELD_BY_PERSON
    if state.canary is not None and not held:
        waits.append(_deadline_left(state, inputs))
        left = pause_left(state, inputs)
        if left is not None:
            waits.append(left)
    ahead = [one for one in waits if one > 0]
    return min(ahead) if ahead else None


def retires_in(state: RolloutState, inputs: Inputs, revision: str) -> float:
    """Seconds until a revision without a share of the traffic loses the next: its conversations, and then its pods."""
    limit = inputs.rollout.scale_down_delay_seconds
    if revision in state.sticky:
        limit = inputs.sticky_seconds or 0
    return limit - _age(state.retiring[revision], inputs.now)


def may_be_needed(state: RolloutState, inputs: Inputs) -> bool:
    """Whether traffic moved so lately that it may have to move back at once."""
    delay = inputs.rollout.scale_down_delay_seconds
    return any(_age(at, inputs.now) < delay for at in state.retiring.values())


def _deadline_left(state: RolloutState, inputs: Inputs) -> float:
    began = [at for at in (state.phase_started_at, state.step_started_at) if at is not None]
    if state.phase in {"Starting", "Promoting"} and state.phase_started_at is not None:
        began = [state.phase_started_at]
    if state.reason == reasons.CANARY_LOST and state.lost_at is not None:
        began = [state.lost_at]
    return inputs.rollout.progress_deadline_seconds - _age(max(began, default=None), inputs.now)


def _age(at: dt.datetime | None, now: dt.datetime) -> float:
    return (now - at).total_seconds() if at is not None else 0.0
