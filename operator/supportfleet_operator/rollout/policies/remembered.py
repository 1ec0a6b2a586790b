"""A revision that was rolled back or undone isn't tried again until the spec changes."""

from dataclasses import replace

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState


def check(state: RolloutState, inputs: Inputs) -> RolloutState | None:
    """Forget it once the spec asks for another."""
    failed = state.failed if state.failed == inputs.target else None
    undone = state.undone if state.undone == inputs.target else None
    if (failed, undone) == (state.failed, state.undone):
        return None
    rolled_back = state.phase in {"Aborting", "RolledBack"} and failed is None
    freed = replace(state, failed=failed, undone=undone)
    if not rolled_back:
        return freed
    message = f"the spec asks for {inputs.target} now"
    return replace(freed, phase="Idle", phase_started_at=inputs.now, reason=reasons.STABLE, message=message)
