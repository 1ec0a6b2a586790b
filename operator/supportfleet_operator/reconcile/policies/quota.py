"""The cluster refuses to create the agent's pods: a quota, Pod Security, a missing PriorityClass, another rule."""

from __future__ import annotations

import re
from typing import Final

from supportfleet_operator.reconcile.policies.base import Finding, View, condition
from supportfleet_operator.reconcile.policies.pods import shorten

REASON: Final = "PodsForbidden"
QUOTA: Final = "QuotaExceeded"

_CAUSES: Final = (
    (re.compile(r"exceeded quota|failed quota"), QUOTA, "spec.template.resources: ask for less, or raise the quota"),
    (
        re.compile(r"LimitRange|(maximum|minimum) .* usage per|limit to request ratio"),
        QUOTA,
        "spec.template.resources: stay within the namespace's LimitRange",
    ),
    (
        re.compile(r"no PriorityClass"),
        REASON,
        "spec.template.priorityClassName: create that PriorityClass, or name another",
    ),
    (
        re.compile(r"violates PodSecurity"),
        REASON,
        "spec.template: a webhook changed the pods so that the namespace's Pod Security level refuses them",
    ),
)


def check(view: View) -> Finding | None:
    """What a Deployment's controller was told when it created pods."""
    every = (*view.observed.deployments.values(), *view.observed.layers.values())
    deployments = (one for one in every if view.concerns(one))
    failures = (condition(one, "ReplicaFailure") for one in deployments)
    failure = next((one for one in failures if one is not None and one["status"] == "True"), None)
    if failure is None:
        return None
    message = str(failure.get("message", ""))
    for pattern, reason, remedy in _CAUSES:
        if pattern.search(message):
            return Finding(reason, f"{remedy}: {shorten(message)}")
    return Finding(REASON, f"the cluster refuses the agent's pods: {shorten(message)}")
