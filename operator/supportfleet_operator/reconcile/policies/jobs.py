"""What a Job has come to, by its conditions and by what its pods left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from supportfleet_operator.cluster.resources import Manifest
from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.policies import pods
from supportfleet_operator.reconcile.policies.base import condition


class End(NamedTuple):
    """How a pod ended."""

    at: str
    code: int
    report: Mapping[str, Any]
    """Its last word; empty where it left none."""


def is_true(job: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition of a Job holds."""
    found = condition(job, kind)
    return found is not None and found["status"] == "True"


def is_finished(job: Mapping[str, Any]) -> bool:
    """Whether a Job has succeeded or failed."""
    return is_true(job, "Complete") or is_true(job, "Failed")


def ends(observed: Observed, job: Manifest) -> Iterator[End]:
    """The ends of the Job's pods."""
    for pod in observed.pods_of(job):
        for container in pods.containers(pod):
            ended = (container.get("state") or {}).get("terminated")
            if ended:
                report = pods.report_of(str(ended.get("message") or ""))
                yield End(str(ended.get("finishedAt") or ""), int(ended.get("exitCode", 0)), report)
