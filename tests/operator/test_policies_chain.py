"""The checklist as a whole: its order, and that it never fails on what it sees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_operator.cluster.resources import ref_of
from supportfleet_operator.reconcile.policies import CHECKS, first_finding
from supportfleet_operator.reconcile.policies.base import ChildProblem
from supportfleet_operator.reconcile.references import SECRETS, Missing, Reference


def test_nothing_to_find_in_health(world: Any) -> None:
    """An agent that runs as its spec says has no finding."""
    assert first_finding(world.with_model().applied().view()) is None


def test_causes_come_before_effects(world: Any) -> None:
    """A missing Secret explains the containers that cannot start, and both explain the rollout."""
    one = world(database={"secretRef": {"name": "db"}}).applied()
    one.rolled_out(available=0)
    assert first_finding(one.view()).reason == "InsufficientReplicas"
    one.waiting("CrashLoopBackOff")
    assert first_finding(one.view()).reason == "CrashLoop"
    one.missing = (Missing(Reference("spec.database.secretRef", SECRETS, "db")),)
    assert first_finding(one.view()).reason == "MissingReference"


def test_a_suspended_agent_has_no_other_trouble(world: Any) -> None:
    """What would keep it from running does not matter while nobody wants it to run."""
    one = world(suspend=True).applied()
    one.waiting("ImagePullBackOff")
    assert first_finding(one.view()).reason == "Suspended"


def test_trouble_of_a_revision_that_is_going_is_not_the_agents(world: Any) -> None:
    """Pods, Deployment and refused children of a revision that was replaced say nothing; those of the new one do."""
    one = world().applied()
    before = one.revision
    one.edit(template={"image": "agent:2"}).settle().after(1)
    old, new = one.child("Deployment", before), one.child("Deployment", one.revision)
    waiting = {"name": "agent", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
    one.pod(revision=before, phase="Pending", containerStatuses=[waiting], conditions=[refused])
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    old["status"]["conditions"].append(failure)
    problem = ChildProblem(ref_of(old), "Refused", "no")
    assert first_finding(one.view(problem)) is None
    new["status"]["conditions"].append(failure)
    assert first_finding(one.view(problem)).reason == "QuotaExceeded"
    assert first_finding(one.view(problem, ChildProblem(ref_of(new), "Refused", "no"))).reason == "Refused"


words = st.sampled_from(["ImagePullBackOff", "CrashLoopBackOff", "Unschedulable", "True", "False", "x", ""])
statuses = st.dictionaries(
    st.sampled_from(["phase", "conditions", "containerStatuses", "initContainerStatuses"]),
    st.lists(
        st.fixed_dictionaries(
            {"name": words, "type": words, "status": words},
            optional={
                "reason": words,
                "message": words,
                "state": st.sampled_from([{}, {"waiting": {}}, {"waiting": {"reason": "CrashLoopBackOff"}}]),
                "lastState": st.sampled_from([{}, {"terminated": {"exitCode": 1}}, {"terminated": {"exitCode": 0}}]),
            },
        ),
        max_size=3,
    ),
)


@settings(deadline=None, max_examples=100)
@given(pods=st.lists(st.tuples(st.sampled_from(["agent", "model-sync"]), statuses), max_size=3), deployment=statuses)
def test_no_status_of_the_cluster_breaks_a_check(world: Any, pods: Any, deployment: Any) -> None:
    """Whatever pods and Deployment say, in whatever half-filled state, each check answers."""
    one = world.with_model().applied()
    one.child("Deployment")["status"] = {"conditions": deployment.get("conditions", [])}
    for component, status in pods:
        one.pod(component, **{key: value for key, value in status.items() if key != "phase"})
    view = one.view()
    for check in CHECKS:
        finding = check(view)
        assert finding is None or (finding.reason and finding.message)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__module__.rsplit(".", 1)[1])
def test_every_check_is_quiet_in_health(world: Any, check: Any) -> None:
    """No check complains about an agent that is well."""
    assert check(world.with_model(database={"secretRef": {"name": "db"}}, replicas=2).applied().view()) is None
