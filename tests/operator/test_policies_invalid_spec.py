"""A spec that is not valid."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import invalid_spec


def test_every_problem_is_named_by_its_field(world: Any) -> None:
    """An object from before a rule existed shows all that is wrong with it, and stalls."""
    finding = invalid_spec.check(world(replicas="many", service={"port": 0}).view())
    assert finding.reason == "InvalidSpec"
    assert finding.stalled
    assert "spec.replicas: " in finding.message
    assert "spec.service.port: " in finding.message
