"""Rollouts that make no progress."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import progress_deadline

EXCEEDED = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


def test_the_deployments_verdict_is_passed_on(world: Any) -> None:
    """With where to look."""
    one = world().applied()
    one.child("Deployment")["status"]["conditions"] = [EXCEEDED]
    finding = progress_deadline.check(one.view())
    assert finding.reason == "ProgressDeadlineExceeded"
    assert finding.stalled
    assert f"kubectl logs deployment/desk-{one.revision}" in finding.message


def test_a_verdict_about_the_spec_of_before_is_not(world: Any) -> None:
    """After an edit the Deployment's controller has to look again first."""
    one = world().applied()
    deployment = one.child("Deployment")
    deployment["status"]["conditions"] = [EXCEEDED]
    deployment["metadata"]["generation"] += 1
    assert progress_deadline.check(one.view()) is None
