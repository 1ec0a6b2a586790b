"""The autoscaler's own state."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import scaling

SPEC = {"database": {"secretRef": {"name": "db"}}, "autoscaling": {"minReplicas": 2, "maxReplicas": 5}}


def with_condition(world: Any, **condition: Any) -> Any:
    one = world(**SPEC).applied()
    one.child("HorizontalPodAutoscaler")["status"] = {"conditions": [{"type": "ScalingActive", **condition}]}
    return one


def test_without_an_autoscaler_there_is_no_condition(world: Any) -> None:
    """Nor while the agent is suspended, and has none."""
    assert scaling.check(world().applied().view()) is None
    assert scaling.check(world(**SPEC, suspend=True).applied().view()) is None


def test_at_first_it_is_unknown(world: Any) -> None:
    """The autoscaler looks every 15 seconds."""
    assert scaling.check(world(**SPEC).applied().view()).status == "Unknown"


def test_an_active_one_says_its_bounds(world: Any) -> None:
    """The message has no figure that changes with every look: it would be written each time."""
    found = scaling.check(with_condition(world, status="True", reason="ValidMetricFound", message="… 37% …").view())
    assert found == ("True", "ValidMetricFound", "between 2 and 5 pods at 70 % CPU")


def test_without_figures_the_remedy_is_named(world: Any) -> None:
    """Usually metrics-server is missing."""
    found = scaling.check(
        with_condition(world, status="False", reason="FailedGetResourceMetric", message="no metrics returned").view()
    )
    assert found.status == "False"
    assert "metrics-server must be installed" in found.message
    assert "no metrics returned" in found.message


def test_the_queue_depth_is_said_to_wait_for_its_adapter(world: Any) -> None:
    """A target that has no effect yet does not pass in silence."""
    one = world(**{**SPEC, "autoscaling": {**SPEC["autoscaling"], "targetQueueDepth": 50}}).applied()
    assert "spec.autoscaling.targetQueueDepth" in scaling.check(one.view()).message
