"""The revision that the spec describes is not yet the one that serves, or its pods are still coming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.api import LayerName
from supportfleet_operator.cluster.resources import Manifest
from supportfleet_operator.reconcile.policies import availability
from supportfleet_operator.reconcile.policies.base import IDLE, Finding, View, condition, was_ready
from supportfleet_operator.reconcile.policies.pods import SLOW, lacks, unready_hint
from supportfleet_operator.rollout.reasons import AWAITING_CHECKLIST, CHECKLIST_FAILED, PROGRESS_DEADLINE_EXCEEDED

REASON: Final = "Progressing"
FIRST_IS_HELD: Final = frozenset({AWAITING_CHECKLIST, CHECKLIST_FAILED, PROGRESS_DEADLINE_EXCEEDED})
"""Reasons for which the pods of a first revision may be ready and serve nobody."""
COMPLETED: Final = "NewReplicaSetAvailable"
"""What the Deployment's controller says of its Progressing condition when a rollout has come to its end."""


def check(view: View) -> Finding | None:
    """How far the rollout is, and after it the Deployment."""
    state = view.decision.state if view.decision else None
    if state is not None and state.stable is not None and (state.phase != IDLE or state.stable != _target(view)):
        hint = lacks(view.observed, state.canary) if state.canary else None
        message = (state.message or f"the rollout is {state.phase}") + (f"; {hint}" if hint else "")
        return Finding(state.reason or REASON, message, stalled=False)
    if state is not None and state.stable is None and state.reason in FIRST_IS_HELD:
        return Finding(state.reason, state.message, stalled=state.reason != AWAITING_CHECKLIST)
    begins = state is not None and state.stable is None
    coming = (_coming(view, layer, one, begins=begins) for layer, one in view.newest_parts.items())
    return next((finding for finding in coming if finding is not None), None)


def _coming(view: View, layer: LayerName | None, deployment: Manifest | None, *, begins: bool) -> Finding | None:
    """How far the Deployment of the newest revision, or of one of its layers, is."""
    if deployment is None:
        return Finding(REASON, f"the Deployment {f'of its {layer} ' if layer else ''}is being created", stalled=False)
    if is_outdated(deployment) and was_ready(view.observed.agent):
        # Its controller has not looked at it yet, and an annotation of somebody's is enough for that. If pods are to be
        # replaced, its next status says so.
        return None
    if is_complete(deployment) and not begins:  # the news of the first revision's pods comes by another watch
        return None
    status = deployment.get("status") or {}
    updated = 0 if is_outdated(deployment) else status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    wanted = deployment["spec"].get("replicas", 1)
    whose = availability.of(layer)
    message = f"{updated} of {wanted} {whose}pods are as the spec says now, and {available} {whose}pods are ready"
    return Finding(REASON, message + unready_hint(view), stalled=False, recheck=SLOW)


def _target(view: View) -> str | None:
    return view.observed.desired.revision if view.observed.desired else None


def is_outdated(deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment's status is of an earlier state of it."""
    status = deployment.get("status") or {}
    return int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0))


def is_complete(deployment: Mapping[str, Any]) -> bool:
    """Whether the rollout came to its end: pods of the newest template only, which once were all ready.

    Pods that fail later, or that an autoscaler adds, make it no less complete.
    """
    status = deployment.get("status") or {}
    updated = status.get("updatedReplicas", 0)
    progressing = condition(deployment, "Progressing")
    return (
        not is_outdated(deployment)
        and updated >= deployment["spec"].get("replicas", 1)
        and updated >= status.get("replicas", 0)
        and (progressing is not None and progressing.get("reason") == COMPLETED)
    )
