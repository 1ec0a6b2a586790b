"""A child could not be written: its name is taken, a field is held by another manager, or the API server refused it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.policies.base import ChildProblem, Finding, View

RECHECK: Final = 60.0
SOON: Final = 5.0

_FIELDS: Final = (
    (
        re.compile(r"spec\.template\.spec\.(?:initC|c)ontainers\[\d+\]\.(env|envFrom|image|imagePullPolicy|resources)"),
        1,
    ),
    (
        re.compile(
            r"spec\.template\.spec\.(affinity|nodeSelector|tolerations|topologySpreadConstraints|priorityClassName|"
            r"imagePullSecrets|terminationGracePeriodSeconds)"
        ),
        1,
    ),
    (re.compile(r"spec\.template\.metadata\.(labels|annotations)"), 1),
)
"""Fields of the Deployment and the Job that come from ``spec.template`` by the same name."""
_OTHERS: Final = (
    (re.compile(r"spec\.(minReplicas|maxReplicas|behavior)"), "spec.autoscaling"),
    (re.compile(r"spec\.(maxUnavailable|minAvailable)"), "spec.availability"),
    (re.compile(r"spec\.(ingress|egress)"), "spec.networkPolicy"),
    (re.compile(r"spec\.ports"), "spec.service"),
    (re.compile(r"spec\.resources\.requests"), "spec.model.cache.size"),
    (re.compile(r"spec\.replicas"), "spec.replicas"),
)


def check(view: View) -> Finding | None:
    """The first problem of the round, and how many more there are."""
    problems = [one for one in (*view.problems, *settled_conflicts(view)) if _concerns(view, one)]
    if not problems:
        return None
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    waits = first.kind == "BeingReplaced"
    return Finding(first.kind, first.message + more, stalled=not waits, recheck=SOON if waits else RECHECK)


def _concerns(view: View, problem: ChildProblem) -> bool:
    manifest = view.rendered.manifests.get(problem.ref) if view.rendered else None
    return manifest is None or view.concerns(manifest)


def settled_conflicts(view: View) -> list[ChildProblem]:
    """Fields that other managers held at the last write, as far as this round did not write again."""
    fresh = {problem.ref for problem in view.problems}
    return [problem for problem in settled(view.observed) if problem.ref not in fresh]


def settled(observed: Observed) -> list[ChildProblem]:
    """Fields that other managers held at the last write of each child."""
    found = []
    for ref, child in observed.children.items():
        settlement = observed.settlements.get(child["metadata"]["uid"])
        if settlement is not None and settlement.holders:
            found.append(conflict(ref, [(holder.manager, holder.field) for holder in settlement.holders]))
    return found


def conflict(ref: object, holders: Sequence[tuple[str, str]]) -> ChildProblem:
    """Another manager holds fields that the operator should set."""
    managers = ", ".join(sorted({repr(manager) for manager, _ in holders}))
    fields = ", ".join(sorted({field.removeprefix(".") for _, field in holders}))
    message = (
        f"{ref}: {fields} is held by {managers}, and is left to it: "
        "configure that manager not to set it, or remove the manager"
    )
    return ChildProblem(ref, "FieldConflict", message)  # type: ignore[arg-type]


def blame(text: str) -> str:
    """The field of the SupportAgent that a field of a child comes from; empty where none does."""
    for pattern, group in _FIELDS:
        if found := pattern.search(text):
            return f"spec.template.{found.group(group)}"
    return next((field for pattern, field in _OTHERS if pattern.search(text)), "")
