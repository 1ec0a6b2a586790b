"""Fewer ready pods than there should be."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import availability

DATABASE = {"secretRef": {"name": "db"}}


def test_a_fixed_number_must_be_ready(world: Any) -> None:
    """Every pod of spec.replicas counts."""
    one = world(database=DATABASE, replicas=3).applied()
    assert availability.check(one.view()) is None
    one.rolled_out(available=2)
    finding = availability.check(one.view())
    assert (finding.reason, finding.stalled) == ("InsufficientReplicas", False)
    assert finding.message.startswith("2 of 3 pods are ready")


def test_under_an_autoscaler_the_minimum_counts(world: Any) -> None:
    """Pods that are being added do not make the agent unready."""
    one = world(database=DATABASE, autoscaling={"minReplicas": 2, "maxReplicas": 9}).applied()
    one.child("Deployment")["spec"]["replicas"] = 9
    one.rolled_out(available=2)
    assert availability.check(one.view()) is None
    one.rolled_out(available=1)
    assert availability.check(one.view()).message.startswith("1 of 2")


def test_none_are_needed_where_none_are_wanted(world: Any) -> None:
    """An agent of 0 replicas is as its spec says."""
    assert availability.check(world(replicas=0).applied().view()) is None
