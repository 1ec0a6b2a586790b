"""The revision that the spec describes was tried and taken back, by the operator or by a person."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies.base import IDLE, Finding, View

REASON: Final = "RolledBack"
ABORTING: Final = "Aborting"
UNDONE: Final = "Undone"


def check(view: View) -> Finding | None:
    """What failed, and the revision that serves instead; nothing is tried again until a person says so."""
    if view.decision is None or view.observed.desired is None:
        return None
    state, target = view.decision.state, view.observed.desired.revision
    if state.phase in {REASON, ABORTING}:  # its pods stay for a while: kstatus calls that progress
        message = state.message or f"revision {state.failed} was rolled back"
        return Finding(REASON, message, stalled=state.phase == REASON)
    if state.phase == IDLE and state.undone == target:
        return Finding(
            UNDONE,
            f"revision {target}, which spec describes, was undone: {state.stable} serves; "
            "change the spec, or ask for `retry`",
        )
    return None
