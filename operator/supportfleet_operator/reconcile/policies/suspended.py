"""The agent is suspended on purpose."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies.base import Finding, View

REASON: Final = "Suspended"


def check(view: View) -> Finding | None:
    """No pods by the user's own wish, which is neither progress nor trouble."""
    if not view.spec.suspend:
        return None
    return Finding(REASON, "spec.suspend is true: no pods run until it is false again", stalled=False)
