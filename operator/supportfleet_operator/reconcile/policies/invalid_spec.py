"""The spec is not valid: stored before a rule existed, or written for a newer version of the operator."""

from __future__ import annotations

from supportfleet_operator.reconcile.policies.base import Finding, View

REASON = "InvalidSpec"


def check(view: View) -> Finding | None:
    """All that is wrong with it, by field."""
    if not view.observed.problems:
        return None
    return Finding(REASON, "; ".join(map(str, view.observed.problems)))
