"""No node can take a pod: the scheduler's own words, and the field that asks for too much."""

from __future__ import annotations

import re
from typing import Final

from supportfleet_operator.reconcile.policies.base import Finding, View, age, condition
from supportfleet_operator.reconcile.policies.pods import shorten

REASON: Final = "Unschedulable"
PATIENCE: Final = 60.0
"""A cluster autoscaler may be adding a node."""

_UNBOUND: Final = re.compile(r"unbound immediate PersistentVolumeClaims|unbound PersistentVolumeClaim")
_CAUSES: Final = (
    (
        re.compile(r'persistentvolumeclaim "[^"]+" not found|volume node affinity|PersistentVolumeClaims'),
        "spec.model.cache: its volume is missing or is on another node",
    ),
    (re.compile(r"Insufficient (\S+?)[,.]?(\s|$)"), "spec.template.resources.requests: lower them, or add nodes"),
    (
        re.compile(r"didn't match Pod's node affinity/selector"),
        "spec.template.nodeSelector and spec.template.affinity: no node matches them",
    ),
    (re.compile(r"untolerated taint"), "spec.template.tolerations: tolerate the nodes' taints, or add other nodes"),
    (
        re.compile(r"topology spread constraints"),
        "spec.template.topologySpreadConstraints: they cannot be kept on these nodes",
    ),
)
_UNKNOWN: Final = "spec.template: lower what the pods ask for, or add nodes"


def check(view: View) -> Finding | None:
    """The pod that has waited longest for a node."""
    refused = [
        found
        for pod in view.pods
        if (found := condition(pod, "PodScheduled")) is not None
        and found["status"] == "False"
        and found.get("reason") == "Unschedulable"
    ]
    if not refused:
        return None
    waited = max(age(view, found.get("lastTransitionTime")) for found in refused)
    said = str(refused[0].get("message", ""))
    remedies = [remedy for pattern, remedy in _CAUSES if pattern.search(said)] or [_UNKNOWN]
    if _UNBOUND.search(said) and view.observed.claim is not None:
        return None  # the volume policy knows why
    stuck = waited >= PATIENCE
    return Finding(
        REASON,
        f"{'; '.join(remedies)}: {shorten(said)}",
        stalled=stuck,
        recheck=None if stuck else PATIENCE - waited + 1,
    )
