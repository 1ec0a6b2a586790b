"""No pod of a canary with traffic is ready any more: stable takes it over until the canary is back.

That isn't a rollback: pods vanish with spot nodes. The deadline makes it one, and counts from the first loss, so that
pods which come up only to go again don't have customers try them for ever; a canary that was up for as long as the
deadline begins anew.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.moves import enter, unmeasured
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Take the traffic from a canary with no ready pods."""
    if state.canary is None or state.weight == 0 or inputs.view(state.canary).ready > 0:
        return None
    lost = replace(unmeasured(state), weight=0, mirror=0, lost_at=_first_loss(state, inputs))
    return enter(lost, inputs, "Starting", reasons.CANARY_LOST, f"no pod of {state.canary} is ready any more")


def _first_loss(state: RolloutState, inputs: Inputs) -> dt.datetime:
    """When this trouble began."""
    moved = max(filter(None, (state.phase_started_at, state.step_started_at)), default=inputs.now)
    was_up = (inputs.now - moved).total_seconds() >= inputs.rollout.progress_deadline_seconds
    return inputs.now if was_up or state.lost_at is None else state.lost_at
