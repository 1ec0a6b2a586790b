"""What moves a rollout: one small check for each cause, in the order in which they outrank each other.

The first that has something to say is the decision: the next state, or the same one, which means to wait. What the
spec asks for comes before what a person asked for, that before what was measured, and all of them before progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from supportfleet_operator.rollout import admission
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.policies import (
    action,
    checklist,
    clock,
    deadline,
    first_revision,
    hold,
    lost_canary,
    promotion,
    remembered,
    rollback,
    scale_down,
    start,
    starting,
    stepping,
    superseded,
    suspended,
    verdict,
    went_back,
)
from supportfleet_operator.rollout.state import RolloutState

CHECKS: Final[tuple[Callable[[RolloutState, Inputs], RolloutState | None], ...]] = (
    clock.check,
    scale_down.check,
    suspended.check,
    remembered.check,
    first_revision.check,
    went_back.check,
    superseded.check,
    action.check,
    start.check,
    hold.check,
    verdict.check,
    lost_canary.check,
    checklist.check,
    deadline.check,
    starting.check,
    stepping.check,
    promotion.check,
    rollback.check,
)


def next_state(state: RolloutState, inputs: Inputs) -> RolloutState:
    """The state after one move, or the same one, with what was found out."""
    informed = remember(state, inputs)
    found = (after for check in CHECKS if (after := check(informed, inputs)) is not None)
    return next(found, informed)


def remember(state: RolloutState, inputs: Inputs) -> RolloutState:
    """The state with what was measured and checked since; it is no move."""
    return admission.remember(verdict.remember(state, inputs), inputs)
