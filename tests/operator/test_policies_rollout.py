"""Pods that are still being replaced."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import rollout

DATABASE = {"secretRef": {"name": "db"}}


def test_it_counts_the_pods(world: Any) -> None:
    """How many are as the spec says, and how many serve."""
    one = world(database=DATABASE, replicas=3).applied()
    one.child("Deployment")["status"] |= {"updatedReplicas": 1, "availableReplicas": 3, "replicas": 4}
    finding = rollout.check(one.view())
    assert not finding.stalled
    assert finding.message.startswith("1 of 3 pods are as the spec says now, and 3 pods are ready")


def test_a_pod_of_before_is_not_the_end(world: Any) -> None:
    """All new pods are there, but an old one still runs."""
    one = world(database=DATABASE, replicas=3).applied()
    one.child("Deployment")["status"]["replicas"] = 4
    assert rollout.check(one.view()) is not None


def test_new_pods_must_once_have_been_ready(world: Any) -> None:
    """Pods that exist but never became ready are a rollout at its beginning, not a fleet that lost pods."""
    one = world().applied()
    one.rolled_out(available=0)
    one.child("Deployment")["status"]["conditions"] = [
        {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
    ]
    assert rollout.check(one.view()).reason == "Progressing"


def test_the_first_revision_serves_once_it_is_stable(world: Any) -> None:
    """A Deployment whose pods are all ready, while the news of the pods themselves is still on its way, is not all."""
    one = world()
    while "Deployment" not in {ref.kind for ref in one.objects}:
        one.step()
    one.pods.clear()
    assert not rollout.check(one.view()).stalled
    one.rolled_out()
    assert rollout.check(one.view()) is None


def test_scaling_up_is_no_rollout(world: Any) -> None:
    """Pods that an autoscaler adds make the agent no less up to date."""
    one = world(database=DATABASE, autoscaling={"minReplicas": 2, "maxReplicas": 9}).applied()
    status = one.child("Deployment")["status"]
    one.child("Deployment")["spec"]["replicas"] = 6
    status |= {"replicas": 6, "updatedReplicas": 6, "availableReplicas": 2}
    assert rollout.check(one.view()) is None


def test_an_annotation_of_somebody_is_no_rollout(world: Any) -> None:
    """It raises the Deployment's generation; an agent that was Ready stays so until the controller says otherwise."""
    one = world().applied()
    one.child("Deployment")["metadata"]["generation"] += 1
    assert rollout.check(one.view()) is not None
    one.report("Ready", "True")
    assert rollout.check(one.view()) is None
    one.agent["metadata"]["generation"] += 1
    assert rollout.check(one.view()) is not None


def test_a_pod_that_stays_unready_is_pointed_at(world: Any) -> None:
    """After half a minute the message says whose logs to read."""
    one = world().applied()
    one.child("Deployment")["status"]["updatedReplicas"] = 0
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": one.stamp(31)}
    one.pod(phase="Running", conditions=[unready])
    assert "kubectl logs desk-pod-0" in rollout.check(one.view()).message
    unready["lastTransitionTime"] = one.stamp(29)
    assert "kubectl logs" not in rollout.check(one.view()).message
