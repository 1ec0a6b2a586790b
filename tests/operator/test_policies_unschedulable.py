"""Pods that no node can take."""

from __future__ import annotations

import re
from typing import Any

import pytest

from supportfleet_operator.reconcile.policies import unschedulable


def refused(world: Any, said: str, *, ago: float = 120) -> Any:
    one = world().applied()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    one.pod(phase="Pending", conditions=[{**condition, "lastTransitionTime": one.stamp(ago)}])
    return one


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("0/3 nodes are available: 3 Insufficient cpu.", "spec.template.resources.requests"),
        ("0/3 nodes are available: 3 Insufficient memory. preemption: 0/3", "spec.template.resources.requests"),
        ("0/1 nodes: 1 node(s) didn't match Pod's node affinity/selector.", "spec.template.nodeSelector"),
        ("0/1 nodes: 1 node(s) had untolerated taint {gpu: true}.", "spec.template.tolerations"),
        ("0/1 nodes: didn't match pod topology spread constraints", "spec.template.topologySpreadConstraints"),
        ('persistentvolumeclaim "mine" not found', "spec.model.cache"),
        ("no nodes available to schedule pods", "spec.template"),
    ],
)
def test_the_scheduler_is_quoted_after_the_field(world: Any, said: str, field: str) -> None:
    """The field that asks for too much comes first."""
    finding = unschedulable.check(refused(world, said).view())
    assert finding.message.startswith(field)
    assert said in finding.message
    assert finding.stalled


@pytest.mark.parametrize("said", ["0/1 nodes are available: 1 Insufficient cpu.", "no nodes available"])
def test_what_can_be_done_is_said(world: Any, said: str) -> None:
    """An impossible request, and whatever else keeps pods from nodes, comes with the remedy."""
    assert re.search("lower .*, or add nodes", unschedulable.check(refused(world, said).view()).message)


def test_two_reasons_name_two_fields(world: Any) -> None:
    """Nodes may be refused for different reasons."""
    said = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {x: y}."
    message = unschedulable.check(refused(world, said).view()).message
    assert "spec.template.resources.requests" in message
    assert "spec.template.tolerations" in message


def test_a_cluster_autoscaler_gets_a_minute(world: Any) -> None:
    """A node may be on its way; afterwards it is trouble, and no event comes at that time."""
    finding = unschedulable.check(refused(world, "Insufficient cpu.", ago=20).view())
    assert not finding.stalled
    assert finding.recheck == 41


def test_a_scheduled_pod_is_fine(world: Any) -> None:
    """Only a refusal counts."""
    one = world().applied()
    one.pod(phase="Running", conditions=[{"type": "PodScheduled", "status": "True"}])
    assert unschedulable.check(one.view()) is None
