"""The rollout has made no progress for the Deployment's deadline."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.cluster.resources import Manifest
from supportfleet_operator.reconcile.observe import revision_of
from supportfleet_operator.reconcile.policies.base import Finding, View, condition
from supportfleet_operator.reconcile.policies.rollout import is_outdated

REASON: Final = "ProgressDeadlineExceeded"


def check(view: View) -> Finding | None:
    """The verdict of a Deployment of the newest revision, unless it is about the spec of before."""
    return next((found for one in view.newest_parts.values() if (found := _verdict(one)) is not None), None)


def _verdict(deployment: Manifest | None) -> Finding | None:
    progressing = condition(deployment, "Progressing")
    if deployment is None or is_outdated(deployment) or progressing is None or progressing.get("reason") != REASON:
        return None
    name = deployment["metadata"]["name"]
    return Finding(
        REASON,
        "new pods did not become ready in time: see why with "
        f"`kubectl describe pods -l supportfleet.dev/revision={revision_of(deployment)}` and "
        f"`kubectl logs deployment/{name}`",
    )
