"""Following a channel: one Job after the other, what was resolved holds, and looks in vain come later and later."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supportfleet_operator.cluster.resources import JOBS, ObjectRef
from supportfleet_operator.reconcile import channels
from supportfleet_operator.reconcile.plan import plan
from supportfleet_operator.reconcile.status import is_current

MODEL = {"uri": "s3://models/intent", "channel": "stable", "channelPollSeconds": 60}
OTHER = "sha256:" + "b" * 64


class Follower:
    """An agent that follows a channel, and its Jobs, which end as the test says."""

    def __init__(self, world: Any, **spec: Any) -> None:
        self.world = world(**{"model": MODEL, **spec})
        self.writes = 0

    def looks(self) -> list[str]:
        return sorted(ref.name for ref in self.world.objects if ref.kind == JOBS.kind and "-channel-" in ref.name)

    def job(self, name: str) -> Any:
        return self.world.objects[ObjectRef(JOBS.kind, "shop", name)]

    def round(self) -> Any:
        """One round; Jobs that verify models succeed, those that look at the channel run on. Counts writes."""
        one = self.world
        found = one.step()
        for name in self.looks():
            if self.job(name).get("status") == {"conditions": [{"type": "Complete", "status": "True"}]}:
                self.job(name)["status"] = {"active": 1}
        status = one.status()
        self.writes += len(found.writes) + len(found.before) + len(found.after) + (not is_current(one.agent, status))
        one.agent["status"] = status
        return found

    def settle(self) -> Follower:
        for _ in range(30):
            before = self.writes
            self.round()
            if self.writes == before:
                return self
        raise AssertionError("never at rest")

    def ends(self, kind: str = "Complete", report: Any = None) -> Follower:
        """The newest look ends, with a report of its pod unless that is lost."""
        name = max(self.looks(), key=lambda one: int(one.rpartition("-")[2]))
        at = self.world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.job(name)["status"] = {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": at}]}
        if report is not None:
            code = 0 if kind == "Complete" else 3
            ended = {"exitCode": code, "message": report if isinstance(report, str) else json.dumps(report)}
            pod = self.world.pod("model-channel", phase="Succeeded")
            pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": self.job(name)["metadata"]["uid"]}]
            pod["status"]["containerStatuses"] = [{"name": "resolve-channel", "state": {"terminated": ended}}]
        return self

    def points(self, version: str = "1", digest: str = "sha256:" + "a" * 64) -> Follower:
        return self.ends(report={"reason": "Resolved", "message": "", "version": version, "digest": digest})

    def fails(self, reason: str = "StorageUnreachable") -> Follower:
        return self.ends("Failed", {"reason": reason, "message": "no route to host"})

    @property
    def model(self) -> Any:
        return self.world.agent["status"].get("model") or {}

    def condition(self, kind: str) -> Any:
        return next((one for one in self.world.agent["status"]["conditions"] if one["type"] == kind), None)


@pytest.fixture
def follower(world: Any) -> Follower:
    """One whose channel points at version 1, which runs."""
    one = Follower(world).settle()
    one.points().settle()
    assert one.condition("Ready")["status"] == "True"
    return one


class TestFirst:
    def test_nothing_runs_before_the_channel_answers(self, world: Any) -> None:
        """A look is started with what its pod needs; no Deployment, and the condition says what is waited for."""
        one = Follower(world).settle()
        kinds = {ref.kind for ref in one.world.objects}
        assert {"Job", "ServiceAccount", "NetworkPolicy"} <= kinds
        assert "Deployment" not in kinds
        assert one.looks() == ["desk-channel-1"]
        assert (one.condition("ModelSynced")["status"], one.condition("ModelSynced")["reason"]) == (
            "False",
            "ResolvingChannel",
        )
        assert one.condition("Reconciling")["reason"] == "ModelNotReady"

    def test_the_answer_is_used_as_if_the_spec_said_it(self, world: Any, follower: Follower) -> None:
        """Version and digest get into the pods, and the revision is the one of a spec that names them."""
        (pod, *_) = [one for one in follower.world.objects.values() if one["kind"] == "Deployment"]
        init = pod["spec"]["template"]["spec"]["initContainers"][0]["env"]
        assert {"name": "MODEL_VERSION", "value": "1"} in init
        assert follower.model | {"loadedPods": 1} == {
            "version": "1",
            "digest": world.digest,
            "loadedPods": 1,
            "channel": "stable",
            "channelVersion": "1",
            "channelDigest": world.digest,
            "channelCheckedAt": world.stamp(),
        }
        named = world(model={"uri": MODEL["uri"], "version": "1", "digest": world.digest})
        assert follower.world.revision == named.revision

    def test_a_channel_that_is_not_there(self, world: Any) -> None:
        """The condition names the field and the remedy, and it is tried again by itself."""
        one = Follower(world).settle().fails("NotFound").settle()
        synced = one.condition("ModelSynced")
        assert (synced["status"], synced["reason"]) == ("False", "NotFound")
        assert "spec.model.channel" in synced["message"]
        assert one.condition("Stalled")["status"] == "True"
        one.world.after(11)
        one.settle().points().settle()
        assert one.condition("Ready")["status"] == "True"


class TestPolling:
    def test_each_poll_is_a_job(self, follower: Follower) -> None:
        """The finished Job stays until the next look is due and is gone once that has ended."""
        assert follower.looks() == ["desk-channel-1"]
        follower.world.after(59)
        follower.settle()
        assert follower.looks() == ["desk-channel-1"]
        follower.world.after(1)
        follower.settle()
        assert follower.looks() == ["desk-channel-1", "desk-channel-2"]
        follower.points().settle()
        assert follower.looks() == ["desk-channel-2"]

    def test_no_news_costs_only_the_job(self, follower: Follower) -> None:
        """The same pointer again: one Job made and one removed, and not a write more."""
        follower.world.after(60)
        follower.settle()
        follower.writes = 0
        follower.points().settle()
        assert follower.writes == 1
        before = follower.world.agent["status"]
        follower.world.after(60)
        follower.round()
        assert follower.world.agent["status"] == before

    def test_a_moved_pointer_is_a_rollout(self, follower: Follower) -> None:
        """Another version is another revision, which takes over as any change does."""
        first = follower.world.revision
        follower.world.after(60)
        follower.settle()
        follower.points("2", OTHER).settle()
        assert follower.world.revision != first
        assert follower.world.rollout["stableRevision"] == follower.world.revision
        assert follower.model["digest"] == OTHER

    def test_the_next_look_is_planned(self, follower: Follower) -> None:
        """Nobody has to wake the agent for it."""
        follower.world.after(20)
        assert plan(follower.world.observed(), follower.world.now).following.again == 40

    def test_a_changed_spec_looks_at_once(self, follower: Follower) -> None:
        """Another channel needs no poll; until it has answered the answer of before holds."""
        first = follower.world.revision
        follower.world.edit(model={**MODEL, "channel": "beta"})
        follower.settle()
        assert follower.looks() == ["desk-channel-2"]
        assert follower.world.revision == first
        follower.points("9", OTHER).settle()
        assert (follower.model["channel"], follower.model["channelVersion"]) == ("beta", "9")

    def test_no_channel_no_jobs(self, follower: Follower, world: Any) -> None:
        """A spec that names a version again leaves neither Jobs nor what was resolved."""
        follower.world.edit(model={"uri": MODEL["uri"], "version": "1", "digest": world.digest})
        follower.settle()
        assert follower.looks() == []
        assert not [name for name in follower.model if name.startswith("channel")]

    def test_a_suspended_agent_does_not_look(self, follower: Follower) -> None:
        """Its Jobs go, and what was resolved stays for when it is back."""
        follower.world.edit(suspend=True)
        follower.settle()
        assert follower.looks() == []
        assert follower.model["channelVersion"] == "1"


class TestFailing:
    def test_what_was_resolved_holds(self, follower: Follower) -> None:
        """The bucket is away: the agent is Ready and runs as before, and the condition says so in its message."""
        first = follower.world.revision
        follower.world.after(60)
        follower.settle().fails().settle()
        assert follower.world.revision == first
        assert follower.condition("Ready")["status"] == "True"
        synced = follower.condition("ModelSynced")
        assert synced["status"] == "True"
        assert "no route to host" in synced["message"]

    def test_looks_in_vain_come_later_and_later(self, follower: Follower) -> None:
        """Doubling from ten seconds, no further apart than polls; the first success starts over."""
        waits = []
        follower.world.after(60)
        follower.settle()
        for _ in range(5):
            follower.fails().settle()
            waits.append(plan(follower.world.observed(), follower.world.now).following.again)
            follower.world.after(waits[-1])
            follower.settle()
        assert waits == [10, 20, 40, 60, 60]
        follower.points().settle()
        assert plan(follower.world.observed(), follower.world.now).following.again == 60
        assert "no route" not in follower.condition("ModelSynced")["message"]

    def test_a_retry_changes_no_status(self, follower: Follower) -> None:
        """While the next try runs the trouble of the last one still stands: no flapping."""
        follower.world.after(60)
        follower.settle().fails().settle()
        before = follower.world.agent["status"]
        follower.world.after(10)
        follower.settle()
        assert len(follower.looks()) == 2
        assert follower.world.agent["status"] == before
        follower.fails().settle()
        assert follower.world.agent["status"] == before

    @pytest.mark.parametrize(
        "report",
        [
            {"reason": "Resolved", "version": "../1", "digest": OTHER},
            {"reason": "Resolved", "version": "1", "digest": "sha256:" + "B" * 64},
            {"reason": "Resolved", "version": "1", "digest": OTHER + "\nEVIL=1"},
            {"reason": "Resolved", "version": 1, "digest": OTHER},
            {"reason": "Resolved"},
        ],
    )
    def test_a_pointer_must_be_what_the_api_allows(self, follower: Follower, report: Any) -> None:
        """What a bucket says gets into no pod unchecked."""
        first = follower.world.revision
        follower.world.after(60)
        follower.settle().ends(report=report).settle()
        assert follower.world.revision == first
        assert "points at no version and digest" in follower.condition("ModelSynced")["message"]

    def test_a_report_may_come_late_or_never(self, follower: Follower) -> None:
        """The pod's end may be known after the Job's; a pod that vanished with its node is another try."""
        follower.world.after(60)
        follower.settle().ends().settle()
        assert plan(follower.world.observed(), follower.world.now).following.trouble is None
        follower.world.after(channels.REPORT_PATIENCE)
        follower.settle()
        assert "left no report" in follower.condition("ModelSynced")["message"]
        assert len(follower.looks()) == 2


class TestChanging:
    def test_from_a_version_to_a_channel(self, world: Any) -> None:
        """An agent that runs goes on with its version until the channel has answered."""
        one = Follower(world, model={"uri": MODEL["uri"], "version": "1", "digest": world.digest}).settle()
        first = one.world.revision
        one.world.edit(model=MODEL)
        one.settle()
        assert one.world.revision == first
        assert one.condition("Ready")["status"] == "True"
        one.points("2", OTHER).settle()
        assert one.model["digest"] == OTHER

    def test_a_first_model_by_channel(self, world: Any) -> None:
        """An agent with no model runs on while the bucket is away, and can be scaled and suspended."""
        one = Follower(world, model=None, replicas=2, database={"secretRef": {"name": "db"}}).settle()
        first = one.world.revision
        one.world.edit(model=MODEL)
        one.settle().fails().settle()
        deployment = one.world.child("Deployment", first)
        assert deployment["spec"]["replicas"] == 2
        assert one.condition("ModelSynced")["reason"] == "StorageUnreachable"
        one.world.edit(replicas=3)
        one.settle()
        assert one.world.child("Deployment", first)["spec"]["replicas"] == 3
        one.world.edit(suspend=True)
        one.settle()
        assert one.world.child("Deployment", first)["spec"]["replicas"] == 0
