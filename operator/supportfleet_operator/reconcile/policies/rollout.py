"""The pods are still being replaced by those of the desired spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.reconcile.policies.base import Finding, View

REASON: Final = "Progressing"


def check(view: View) -> Finding | None:
    """How far the Deployment is."""
    deployment = view.observed.deployment
    if deployment is None:
        return Finding(REASON, "the Deployment is being created", stalled=False)
    if not is_complete(deployment):
        status = deployment.get("status") or {}
        updated, wanted = status.get("updatedReplicas", 0), deployment["spec"].get("replicas", 1)
        if is_outdated(deployment):
            updated = 0
        return Finding(REASON, f"{updated} of {wanted} pods are as the spec says now", stalled=False)
    return None


def is_outdated(deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment's status is of an earlier spec."""
    status = deployment.get("status") or {}
    return int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0))


def is_complete(deployment: Mapping[str, Any]) -> bool:
    """Whether all pods are of the newest template, and none of before is left."""
    status = deployment.get("status") or {}
    updated = status.get("updatedReplicas", 0)
    return (
        not is_outdated(deployment)
        and updated >= deployment["spec"].get("replicas", 1)
        and updated >= status.get("replicas", 0)
    )
