"""Why an agent is not Ready: one small check for each cause, in the order in which they explain each other.

The first finding is the condition's reason. Causes come before effects (a missing Secret before the pods that crash
without it), and trouble before progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from supportfleet_operator.reconcile.policies import (
    availability,
    child_problem,
    crash_loop,
    image_pull,
    invalid_spec,
    missing_reference,
    model_sync,
    progress_deadline,
    quota,
    rolled_back,
    rollout,
    suspended,
    unschedulable,
    volume,
)
from supportfleet_operator.reconcile.policies.base import Finding, View

CHECKS: Final[tuple[Callable[[View], Finding | None], ...]] = (
    invalid_spec.check,
    child_problem.check,
    suspended.check,
    rolled_back.check,
    missing_reference.check,
    quota.check,
    image_pull.check,
    unschedulable.check,
    volume.check,
    model_sync.check,
    crash_loop.check,
    progress_deadline.check,
    rollout.check,
    availability.check,
)


def first_finding(view: View) -> Finding | None:
    """What keeps the agent from being Ready; None when nothing does."""
    return next((finding for check in CHECKS if (finding := check(view)) is not None), None)
