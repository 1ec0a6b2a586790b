"""The claim for models is not bound."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies.base import Finding, View, age

REASON: Final = "VolumePending"
LOST: Final = "VolumeLost"
PATIENCE: Final = 60.0
"""Provisioning takes a while, and waits for the first pod where the StorageClass says so."""


def check(view: View) -> Finding | None:
    """Why the agent's own claim is not bound."""
    claim = view.observed.claim
    if claim is None:
        return None
    phase = (claim.get("status") or {}).get("phase")
    name = claim["metadata"]["name"]
    if phase == "Lost":
        return Finding(
            LOST,
            f"spec.model.cache: the volume of PersistentVolumeClaim {name!r} is gone: "
            "delete the claim, and the operator makes another and syncs the model again",
        )
    if phase != "Pending":
        return None
    if not claim["spec"].get("storageClassName"):
        return Finding(
            REASON,
            "spec.model.cache.storageClassName: it is not set and the cluster has no default StorageClass: "
            "set it to a StorageClass, or use spec.model.cache.type EmptyDir",
        )
    waited = age(view, claim["metadata"].get("creationTimestamp"))
    stuck = waited >= PATIENCE
    return Finding(
        REASON,
        f"spec.model.cache: PersistentVolumeClaim {name!r} waits for a volume of StorageClass "
        f"{claim['spec']['storageClassName']!r}"
        + (f": see `kubectl describe pvc {name}` for what its provisioner says" if stuck else ""),
        stalled=stuck,
        recheck=None if stuck else PATIENCE - waited + 1,
    )
