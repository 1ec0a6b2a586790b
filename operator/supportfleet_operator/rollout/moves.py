"""The moves that a rollout consists of: each makes the next state of the last, and nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from supportfleet_operator.api import RolloutPhase
from supportfleet_operator.api.status import MAX_RETIRING
from supportfleet_operator.rollout.capacity import FULL, is_undo, step
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState

_AT_REST: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "weight": 0,
        "mirror": 0,
        "step": 0,
        "step_started_at": None,
        "last_analysis_at": None,
        "baseline": {},
        "checked": None,
        "lost_at": None,
    }
)
"""What a state with no canary remembers of one."""


def enter(
    state: RolloutState, inputs: Inputs, phase: RolloutPhase, reason: str, message: str, **more: Any
) -> RolloutState:
    """Go into a phase; the clock of the phase begins where it is another."""
    began = state.phase_started_at if phase == state.phase else inputs.now
    return replace(state, phase=phase, reason=reason, message=message, phase_started_at=began, **more)


def begin(state: RolloutState, inputs: Inputs, canary: str, reason: str, message: str) -> RolloutState:
    """Bring a new revision up, with no traffic, at the first step."""
    return replace(
        enter(replace(state, **_AT_REST), inputs, "Starting", reason, message),
        canary=canary,
        phase_started_at=inputs.now,
        step_started_at=inputs.now,
        last_analysis=(),
        analysis_failures=0,
        retiring={name: at for name, at in state.retiring.items() if name != canary},
        sticky=tuple(name for name in state.sticky if name != canary),
    )


def to_step(state: RolloutState, inputs: Inputs, number: int, reason: str, message: str) -> RolloutState:
    """Go to a step; a step that waits for an analysis measures anew."""
    there = enter(state, inputs, "Stepping", reason, message, step=number, step_started_at=inputs.now)
    now = step(there, inputs)
    return unmeasured(there) if now is not None and now.analysis is not None else there


def promoting(state: RolloutState, inputs: Inputs, reason: str, message: str, **more: Any) -> RolloutState:
    """Leave the steps behind: what is next is all of the traffic, and no copies of it."""
    return enter(state, inputs, "Promoting", reason, message, mirror=0, **more)


def unmeasured(state: RolloutState) -> RolloutState:
    """Forget what was measured, but for how stable did, which a canary with all of the traffic is compared with."""
    forgotten = tuple(
        one.model_copy(update={"verdict": "Inconclusive", "value": None, "samples": 0, "message": None})
        for one in state.last_analysis
    )
    return replace(state, last_analysis=forgotten, last_analysis_at=None, baseline={})


def can_take_over(state: RolloutState, inputs: Inputs) -> bool:
    """Whether taking the canary's traffic leaves customers with somebody to answer them, or at least no worse off."""
    return state.weight == 0 or inputs.view(state.stable).ready > 0 or inputs.view(state.canary).ready == 0


def discard(state: RolloutState, inputs: Inputs, phase: RolloutPhase, reason: str, message: str) -> RolloutState:
    """Take all traffic from the canary; its pods stay until the delay has passed, its conversations don't."""
    left = _retired(state, inputs, state.canary)
    return enter(state, inputs, phase, reason, message, canary=None, **_AT_REST, **left)


def discard_if_safe(
    state: RolloutState, inputs: Inputs, phase: RolloutPhase, reason: str, message: str
) -> RolloutState:
    """The same, once stable has a pod to answer with; until then the canary keeps what it has."""
    if can_take_over(state, inputs):
        return discard(state, inputs, phase, reason, message)
    return not_yet(state, inputs, reason, message)


def not_yet(state: RolloutState, inputs: Inputs, reason: str, message: str) -> RolloutState:
    """Wait for stable, which is to take over and can't."""
    if (state.phase, state.reason) == ("Paused", reason):
        return state
    return enter(state, inputs, "Paused", reason, f"{message}, but no pod of {state.stable} is ready to take over")


def abort(state: RolloutState, inputs: Inputs, reason: str, message: str) -> RolloutState:
    """Roll back: no traffic for the canary, and no second try until the spec changes or somebody says so."""
    if is_undo(state):  # the spec asks for the stable revision: there is nothing to remember as failed
        return replace(discard(state, inputs, "Idle", reason, message), undone=None)
    return replace(discard(state, inputs, "Aborting", reason, message), failed=state.canary)


def complete(state: RolloutState, inputs: Inputs, stable: str, reason: str, message: str) -> RolloutState:
    """Make a revision the stable one; the one before keeps its pods, and its conversations unless it was undone."""
    left = _retired(state, inputs, state.stable, stays=not is_undo(state), but=stable)
    previous = state.stable or state.previous
    return enter(
        state, inputs, "Idle", reason, message, stable=stable, canary=None, previous=previous, **_AT_REST, **left
    )


def _retired(
    state: RolloutState, inputs: Inputs, revision: str | None, *, stays: bool = False, but: str | None = None
) -> dict[str, Any]:
    """What keeps its pods without traffic once this revision has none either; the oldest go where there are too many.

    A first revision that never had a ready pod has none to keep.
    """
    at = {name: since for name, since in state.retiring.items() if name != but}
    if revision is not None and (state.stable is not None or inputs.view(revision).ready > 0):
        at[revision] = inputs.now
    newest = sorted(at, key=lambda name: at[name])[-MAX_RETIRING:]
    stay = (*state.sticky, *([revision] if revision and stays else []))
    return {
        "retiring": {name: at[name] for name in newest},
        "sticky": tuple(name for name in dict.fromkeys(stay) if name in newest),
    }


def share(weight: int) -> str:
    """A weight in words."""
    return "all of the traffic" if weight >= FULL else f"{weight} % of the traffic"
