"""Fewer pods are ready than the agent should have."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies.base import Finding, View
from supportfleet_operator.reconcile.policies.pods import SLOW, unready_hint

REASON: Final = "InsufficientReplicas"


def check(view: View) -> Finding | None:
    """Ready pods against the fixed number, or against the autoscaler's minimum."""
    deployment = view.deployment
    if deployment is None:
        return None
    available = (deployment.get("status") or {}).get("availableReplicas", 0)
    wanted = required(view)
    if available >= wanted:
        return None
    message = f"{available} of {wanted} pods are ready" + unready_hint(view)
    return Finding(REASON, message, stalled=False, recheck=SLOW)


def required(view: View) -> int:
    """Pods that must be ready. Those that an autoscaler is adding at the moment don't count."""
    scaling = view.spec.autoscaling
    return int(scaling.min_replicas if scaling is not None else view.spec.replicas)
