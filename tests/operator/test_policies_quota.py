"""Pods that the cluster refuses to create."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.reconcile.policies import quota


@pytest.mark.parametrize(
    ("said", "reason", "field"),
    [
        ('pods "x" is forbidden: exceeded quota: tight, requested: cpu=2', "QuotaExceeded", "spec.template.resources"),
        ('pods "x" is forbidden: maximum memory usage per Pod is 1Gi', "QuotaExceeded", "spec.template.resources"),
        ("no PriorityClass with name urgent was found", "PodsForbidden", "spec.template.priorityClassName"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodsForbidden", "spec.template"),
        ("admission webhook denied the request: because", "PodsForbidden", "because"),
    ],
)
def test_the_refusal_names_field_and_words(world: Any, said: str, reason: str, field: str) -> None:
    """What the ReplicaSet's controller was told is passed on, after the field to change."""
    one = world().applied()
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    one.child("Deployment")["status"]["conditions"].append(failure)
    finding = quota.check(one.view())
    assert finding.reason == reason
    assert field in finding.message
    assert said in finding.message


def test_a_refusal_that_is_over_is_forgotten(world: Any) -> None:
    """Only a condition that holds counts."""
    one = world().applied()
    one.child("Deployment")["status"]["conditions"].append({"type": "ReplicaFailure", "status": "False"})
    assert quota.check(one.view()) is None
