"""Children that could not be written."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.cluster.resources import ObjectRef
from supportfleet_operator.reconcile.policies import child_problem
from supportfleet_operator.reconcile.policies.base import ChildProblem
from supportfleet_operator.reconcile.settlements import Holder, Settlement

SERVICE = ObjectRef("Service", "shop", "desk")


def test_the_first_problem_is_the_reason(world: Any) -> None:
    """Further ones are counted."""
    taken, refused = ChildProblem(SERVICE, "NameTaken", "taken"), ChildProblem(SERVICE, "Refused", "refused")
    finding = child_problem.check(world().view(taken, refused))
    assert (finding.reason, finding.message) == ("NameTaken", "taken (and 1 more)")
    assert finding.stalled


def test_a_predecessor_is_only_waited_for(world: Any) -> None:
    """What the garbage collector is about to remove is no reason to stall."""
    finding = child_problem.check(world().view(ChildProblem(SERVICE, "BeingReplaced", "being removed")))
    assert not finding.stalled
    assert finding.recheck < 10


def test_a_conflict_stays_reported_while_nothing_is_written(world: Any) -> None:
    """What another manager holds is remembered from the last write, and named with its field."""
    one = world().applied()
    uid = one.child("Deployment")["metadata"]["uid"]
    one.settlements[uid] = Settlement("h", b"", (Holder("policy-engine", ".spec.template.x"),), one.now)
    finding = child_problem.check(one.view())
    assert finding.reason == "FieldConflict"
    assert f"Deployment/desk-{one.revision}: spec.template.x is held by 'policy-engine'" in finding.message


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("spec.template.spec.containers[0].resources.requests: Invalid value", "spec.template.resources"),
        ("spec.template.spec.initContainers[0].image: Required value", "spec.template.image"),
        ("spec.template.spec.affinity.podAffinity: Invalid", "spec.template.affinity"),
        ("spec.template.spec.tolerations[1].effect: Unsupported", "spec.template.tolerations"),
        ("spec.template.metadata.labels: Invalid value", "spec.template.labels"),
        ("spec.maxReplicas: Invalid value", "spec.autoscaling"),
        ("spec.ports[0].nodePort: Invalid value", "spec.service"),
        ("spec.minAvailable: Invalid", "spec.availability"),
        ("spec.resources.requests.storage: Forbidden: field can not be less", "spec.model.cache.size"),
        ("something else", ""),
    ],
)
def test_a_refusal_is_blamed_on_the_agents_field(said: str, field: str) -> None:
    """The API server speaks of the child; the user knows the SupportAgent."""
    assert child_problem.blame(said) == field
