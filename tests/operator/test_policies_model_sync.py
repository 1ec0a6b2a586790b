"""The gate before the pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supportfleet_operator.reconcile import rollouts
from supportfleet_operator.reconcile.policies import model_sync
from supportfleet_operator.reconcile.policies.model_reasons import REMEDIES, explain


def gate(one: Any) -> model_sync.Gate:
    observed, rendered = one.observed(), one.rendered
    return rollouts.gate(observed, rendered, one.revision, one.now)


def job_status(one: Any, *conditions: str, **status: Any) -> Any:
    one.child("Job")["status"] = {
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": one.stamp(5)} for kind in conditions],
        **status,
    }
    return one


def ended(one: Any, message: str, *, code: int = 2, reason: str = "Error", ago: float = 5) -> None:
    terminated = {"exitCode": code, "reason": reason, "message": message, "finishedAt": one.stamp(ago)}
    one.pod("model-sync", containerStatuses=[{"name": "sync-model", "state": {"terminated": terminated}}])


class TestGate:
    def test_no_model_needs_no_gate(self, world: Any) -> None:
        """Without spec.model, or suspended, nothing is waited for."""
        assert gate(world()).is_open
        assert gate(world.with_model(suspend=True)).is_open

    def test_only_a_complete_job_opens_it(self, world: Any) -> None:
        """Absent, at work and failed keep it shut."""
        one = world.with_model()
        assert not gate(one).is_open
        one.applied()
        assert gate(one).is_open
        assert not gate(job_status(one, active=1)).is_open
        assert not gate(job_status(one, "Failed")).is_open

    def test_the_job_of_another_model_does_not_count(self, world: Any) -> None:
        """A proof is of one digest."""
        one = world.with_model().applied()
        one.edit(model={**one.agent["spec"]["model"], "digest": "sha256:" + "b" * 64})
        assert not gate(one).is_open

    def test_a_failure_is_explained_by_what_the_pod_reported(self, world: Any) -> None:
        """The termination message of the latest pod says why, with field and remedy."""
        one = job_status(world.with_model().applied(), "Failed")
        ended(one, json.dumps({"reason": "StorageUnreachable", "message": "timed out"}), code=3, ago=60)
        ended(one, "some log line\n" + json.dumps({"reason": "DigestMismatch", "message": "got sha256:bb"}))
        found = gate(one)
        assert (found.state, found.reason) == ("Failed", "DigestMismatch")
        assert found.message.startswith("spec.model.digest: ")
        assert "got sha256:bb" in found.message

    def test_a_failing_try_shows_before_the_job_gives_up(self, world: Any) -> None:
        """While the Job still retries, the reason is known already."""
        one = job_status(world.with_model().applied(), active=1)
        ended(one, json.dumps({"reason": "StorageUnreachable", "message": "refused"}), code=3)
        assert (gate(one).state, gate(one).reason) == ("Running", "StorageUnreachable")

    @pytest.mark.parametrize(
        ("message", "reason", "expected"),
        [("Killed", "OOMKilled", "OutOfMemory"), ("no json here", "Error", "SyncFailed"), ("", "Error", "SyncFailed")],
    )
    def test_a_pod_without_a_report_still_has_a_reason(
        self, world: Any, message: str, reason: str, expected: str
    ) -> None:
        """Killed for memory, or ended in a way that nobody foresaw."""
        one = job_status(world.with_model().applied(), "Failed")
        ended(one, message, code=137, reason=reason)
        assert gate(one).reason == expected

    def test_a_failed_job_without_pods_says_what_the_job_says(self, world: Any) -> None:
        """Its pods may be gone with their node."""
        one = job_status(world.with_model().applied(), "Failed")
        one.child("Job")["status"]["conditions"][0]["message"] = "Job was active longer than specified deadline"
        assert "longer than specified deadline" in gate(one).message

    def test_a_job_that_gets_no_pod_is_stuck(self, world: Any) -> None:
        """When the cluster refuses its pods only the Job's events say why, so the message leads there."""
        one = job_status(world.with_model().applied())
        one.child("Job")["metadata"]["creationTimestamp"] = one.stamp(10)
        assert gate(one).reason == "Downloading"
        assert gate(one).retry_in == 20
        one.child("Job")["metadata"]["creationTimestamp"] = one.stamp(31)
        assert gate(one).stuck
        assert "kubectl describe job desk-model-" in gate(one).message


class TestFinding:
    def test_downloading_is_progress(self, world: Any) -> None:
        """Fetching is no trouble; pods of before are said to serve."""
        one = job_status(world.with_model().applied(), active=1)
        finding = model_sync.check(one.view())
        assert (finding.reason, finding.stalled) == ("ModelNotReady", False)
        assert "keep serving" in finding.message

    def test_failing_is_trouble_once_the_job_gave_up(self, world: Any) -> None:
        """Retries of the Job itself are not worth an alarm; its end is."""
        one = job_status(world.with_model().applied(), active=1)
        ended(one, json.dumps({"reason": "StorageUnreachable", "message": "m"}), code=3)
        assert not model_sync.check(one.view()).stalled
        job_status(one, "Failed")
        finding = model_sync.check(one.view())
        assert finding.stalled
        assert finding.recheck is not None


@pytest.mark.parametrize("reason", REMEDIES)
def test_every_reason_names_a_field_and_a_remedy(reason: str) -> None:
    """Whatever the sync reports, its condition says which field of spec.model to look at."""
    name, message = explain({"reason": reason, "message": "said"})
    assert name == reason
    assert message.startswith("spec.model")
    assert message.endswith("(said)")


def test_an_unknown_reason_is_kept() -> None:
    """A newer runtime may report what this operator has not heard of."""
    assert explain({"reason": "Novel", "message": ""}) == ("Novel", "spec.model: see the logs of the model Job")
