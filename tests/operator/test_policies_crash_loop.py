"""Containers that cannot be started, or end again and again."""

from __future__ import annotations

import json
from typing import Any

from supportfleet_operator.reconcile.policies import crash_loop


def crashing(world: Any, *, container: str = "agent", init: bool = False, **terminated: Any) -> Any:
    one = world.with_model().applied()
    state = {
        "name": container,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": {"exitCode": 1, **terminated}} if terminated else {},
    }
    one.pod(phase="Running", **{"initContainerStatuses" if init else "containerStatuses": [state]})
    return one


def test_the_last_words_of_the_container_are_quoted(world: Any) -> None:
    """Exit code, last message, and where to read more."""
    finding = crash_loop.check(crashing(world, exitCode=3, message="DATABASE_URL is not valid").view())
    assert finding.reason == "CrashLoop"
    assert "exit code 3" in finding.message
    assert "DATABASE_URL is not valid" in finding.message
    assert "kubectl logs desk-pod-0 -c agent -p" in finding.message


def test_a_long_message_keeps_its_end(world: Any) -> None:
    """Programs say at the end what went wrong."""
    finding = crash_loop.check(crashing(world, message="x" * 5000 + " the cause").view())
    assert finding.message.endswith("the cause")
    assert len(finding.message) < 800


def test_killed_for_memory_names_the_limit(world: Any) -> None:
    """The remedy is another field."""
    finding = crash_loop.check(crashing(world, reason="OOMKilled", exitCode=137).view())
    assert finding.reason == "OutOfMemory"
    assert finding.message.startswith("spec.template.resources.limits.memory")


def test_the_sync_in_a_pod_speaks_like_the_jobs(world: Any) -> None:
    """Where every pod fetches the model, its init container may find it changed since the Job."""
    message = json.dumps({"reason": "DigestMismatch", "message": "got another"})
    finding = crash_loop.check(crashing(world, container="sync-model", init=True, message=message).view())
    assert finding.reason == "ModelNotReady"
    assert finding.message.startswith("DigestMismatch: spec.model.digest: ")


def test_without_a_known_end_the_logs_are_named(world: Any) -> None:
    """The state before may be gone."""
    assert "kubectl logs" in crash_loop.check(crashing(world).view()).message


def test_a_container_that_cannot_start_is_told_by_the_kubelet(world: Any) -> None:
    """Its words are all there is."""
    one = world().applied()
    one.waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
    finding = crash_loop.check(one.view())
    assert finding.reason == "ContainerNotStarted"
    assert "runAsNonRoot" in finding.message


def test_a_pod_on_its_way_out_does_not_count(world: Any) -> None:
    """What is being replaced may fail as it goes."""
    one = crashing(world, exitCode=1)
    one.pods[-1]["metadata"]["deletionTimestamp"] = one.stamp()
    assert crash_loop.check(one.view()) is None
