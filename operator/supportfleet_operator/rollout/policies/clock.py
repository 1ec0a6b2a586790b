"""A clock that went backwards, or a state that lacks a time.

What began in the future began now: a pause may get longer by that, never shorter, and never by more than itself.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Bring the times back to what can be."""
    now = inputs.now
    needs_times = state.canary is not None
    sane = replace(
        state,
        step_started_at=_sane(state.step_started_at, now, needed=needs_times),
        phase_started_at=_sane(state.phase_started_at, now, needed=needs_times),
        last_analysis_at=_sane(state.last_analysis_at, now, needed=False),
        lost_at=_sane(state.lost_at, now, needed=False),
        retiring={name: min(at, now) for name, at in state.retiring.items()},
    )
    return sane if sane != state else None


def _sane(at: dt.datetime | None, now: dt.datetime, *, needed: bool) -> dt.datetime | None:
    if at is None:
        return now if needed else None
    return min(at, now)
