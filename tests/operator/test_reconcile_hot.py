"""Models that running pods take: told once verified, asked while it is under way, and said when it fails."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.cluster.resources import ObjectRef
from supportfleet_operator.reconcile import hot
from supportfleet_operator.reconcile.hot import Loaded, loaded
from supportfleet_operator.reconcile.policies import first_finding

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MODEL = {"uri": "s3://models/intent", "version": "1", "digest": OLD, "reload": "Hot"}
NEXT = {**MODEL, "version": "2", "digest": NEW}


def text(digest: str, refused: str = "", reason: str = "SelfTestFailed") -> str:
    lines = ["# TYPE agent_model_info gauge", f'agent_model_info{{digest="{digest}",version="1"}} 1.0']
    if refused:
        lines += [
            "# TYPE agent_model_reload_failed_info gauge",
            f'agent_model_reload_failed_info{{digest="{refused}",reason="{reason}",version="2"}} 1.0',
        ]
    return "\n".join([*lines, "# TYPE other counter", "other_total 5", ""])


class Desk:
    """Two pods on a hot model; each has loaded what the test says."""

    def __init__(self, world: Any, **spec: Any) -> None:
        self.world = world(**{"model": MODEL, "replicas": 2, "database": {"secretRef": {"name": "db"}}, **spec})
        self.holds: dict[str, str] = {}
        self.jobs_run = True
        self.asked = 0

    def round(self) -> Any:
        one = self.world
        probe = hot.probe(one.observed(), one.now)
        if probe is not None:
            self.asked += 1
            one.loading = {
                name: {pod: self.holds.get(pod, text(OLD)) for pod in pods} for name, pods in probe.pods.items()
            }
        found = one.step()
        if not self.jobs_run:
            for ref, live in one.objects.items():
                if ref.kind == "Job" and live["metadata"]["annotations"]["supportfleet.dev/model-digest"] == NEW:
                    live["status"] = {"active": 1}
        one.agent["status"] = one.status()
        one.loading = None
        return found

    def settle(self) -> Desk:
        for _ in range(30):
            before = self.world.agent["status"]
            if self.round().is_empty and self.world.agent["status"] == before:
                return self
        raise AssertionError("never at rest")

    @property
    def pointer(self) -> Any:
        live = self.world.objects.get(ObjectRef("ConfigMap", "shop", "desk-model"))
        return live and json.loads(live["data"]["model.json"])

    @property
    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.world.observed().agent_pods]

    @property
    def model(self) -> Any:
        return self.world.agent["status"]["model"]

    def condition(self, kind: str) -> Any:
        listed = self.world.agent["status"]["conditions"]
        return next(((one["status"], one["reason"]) for one in listed if one["type"] == kind), None)

    def message(self, kind: str) -> str:
        listed = self.world.agent["status"]["conditions"]
        return next(str(one["message"]) for one in listed if one["type"] == kind)


@pytest.fixture
def desk(world: Any) -> Desk:
    one = Desk(world).settle()
    assert one.condition("Ready") == ("True", "Available")
    one.asked = 0
    return one


class TestTelling:
    def test_pods_are_told_before_there_are_any(self, world: Any) -> None:
        """The pointer is written once the Job has verified the model, and pods come after it."""
        one = Desk(world)
        written = [[write.ref for write in one.round().writes] for _ in range(8)]
        at = {
            ref.kind if ref.kind != "ConfigMap" else ref.name: number
            for number, refs in enumerate(written)
            for ref in refs
        }
        assert at["Job"] < at["desk-model"] < at["Deployment"]
        assert one.pointer == {"uri": MODEL["uri"], "version": "1", "digest": OLD}

    def test_another_model_is_no_revision(self, desk: Desk) -> None:
        """No pod is replaced and no rollout begins; only the pointer changes."""
        before = {ref: live for ref, live in desk.world.objects.items() if ref.kind == "Deployment"}
        first = desk.world.revision
        desk.world.edit(model=NEXT)
        desk.settle()
        assert desk.world.revision == first
        assert {ref: live for ref, live in desk.world.objects.items() if ref.kind == "Deployment"} == before
        assert desk.pointer["digest"] == NEW

    def test_an_unverified_model_is_never_told(self, desk: Desk) -> None:
        """While its Job runs, or has failed, pods are told the one of before; other changes go on."""
        desk.jobs_run = False
        desk.world.edit(model=NEXT)
        desk.settle()
        assert desk.pointer["digest"] == OLD
        assert desk.condition("ModelSynced")[0] == "False"
        first = desk.world.revision
        desk.world.edit(template={"image": "agent:2"})
        desk.settle()
        assert desk.world.revision != first
        assert desk.world.rollout["stableRevision"] == desk.world.revision
        assert desk.pointer["digest"] == OLD
        assert (desk.model["version"], desk.model["digest"]) == ("1", OLD)

    def test_a_revision_that_was_rolled_back_keeps_no_model_from_the_others(self, desk: Desk) -> None:
        """The spec's own revision has no pods and no Job any more: that of the one that serves verifies the model."""
        desk.world.edit(template={"image": "agent:2"})
        desk.world.unready.add(desk.world.revision)
        desk.settle().world.after(601)
        desk.settle().world.after(60)
        desk.settle()
        assert desk.world.rollout["phase"] == "RolledBack"
        desk.world.edit(model=NEXT)
        desk.settle()
        assert desk.pointer["digest"] == NEW
        desk.holds = {pod: text(NEW) for pod in desk.pods}
        desk.settle()
        assert desk.condition("ModelSynced") == ("True", "Synced")
        assert desk.condition("Ready") == ("False", "RolledBack")

    def test_a_pointer_that_somebody_changed_is_put_back(self, desk: Desk) -> None:
        """It says what the spec says."""
        live = desk.world.objects[ObjectRef("ConfigMap", "shop", "desk-model")]
        live["data"] = {"model.json": "{}"}
        desk.settle()
        assert desk.pointer["digest"] == OLD

    def test_it_goes_with_the_last_pods_that_follow_it(self, desk: Desk, world: Any) -> None:
        """Back to rollouts: the pointer stays until the revision that reads it is gone for good."""
        desk.world.edit(model={**MODEL, "reload": "Rollout"})
        desk.round()
        assert desk.pointer["digest"] == OLD
        for number in range(2, 9):
            desk.world.edit(template={"image": f"agent:{number}"})
            desk.settle().world.after(3600)
            desk.settle()
        assert desk.pointer is None


class TestLoading:
    def test_nobody_is_asked_at_rest(self, desk: Desk) -> None:
        """Pods that started with the model had it before they were ready."""
        desk.world.edit(replicas=4)
        desk.settle()
        assert desk.asked == 0
        assert desk.model["loadedPods"] == 4

    def test_loaded_pods_are_counted_by_their_own_word(self, desk: Desk) -> None:
        """One after the other says so; the condition turns True with the last."""
        desk.world.edit(model=NEXT)
        desk.settle()
        assert desk.condition("ModelSynced") == ("False", "Reloading")
        assert desk.condition("Reconciling") == ("True", "ModelNotReady")
        assert desk.model == {"version": "2", "digest": NEW, "loadedPods": 0}
        desk.holds[desk.pods[0]] = text(NEW)
        desk.settle()
        assert desk.model["loadedPods"] == 1
        assert "1 of 2 pods" in desk.message("ModelSynced")
        desk.holds[desk.pods[1]] = text(NEW)
        desk.settle()
        assert desk.model["loadedPods"] == 2
        assert desk.condition("ModelSynced") == ("True", "Synced")
        assert desk.condition("Ready") == ("True", "Available")
        desk.asked = 0
        desk.settle()
        assert desk.asked == 0

    def test_a_model_that_pods_refuse(self, desk: Desk) -> None:
        """The condition has the pods' reason and what to do; the old model goes on, and going back heals."""
        desk.world.edit(model=NEXT)
        desk.holds = {pod: text(OLD, refused=NEW) for pod in desk.pods}
        desk.settle()
        assert desk.condition("ModelSynced") == ("False", "ReloadFailed")
        assert desk.condition("Stalled") == ("True", "ModelNotReady")
        for said in ("SelfTestFailed", desk.pods[0], "0 of 2", "publish another"):
            assert said in desk.message("ModelSynced")
        desk.world.edit(model=MODEL)
        desk.holds = {}
        desk.settle()
        assert desk.condition("Ready") == ("True", "Available")
        assert desk.model == {"version": "1", "digest": OLD, "loadedPods": 2}

    def test_a_refusal_of_another_model_means_nothing(self, desk: Desk) -> None:
        """What a pod says of the try before is not about this one."""
        desk.world.edit(model=NEXT)
        desk.holds = {pod: text(OLD, refused="sha256:" + "c" * 64) for pod in desk.pods}
        desk.settle()
        assert desk.condition("ModelSynced") == ("False", "Reloading")

    def test_pods_are_asked_less_and_less_often(self, desk: Desk) -> None:
        """Every two seconds at first, every half minute in the end."""
        desk.world.edit(model=NEXT)
        desk.settle()
        waits = []
        for _ in range(4):
            waits.append(hot.every(desk.world.observed(), desk.world.now))
            desk.world.after(100)
        assert waits == [2.0, 10.0, 20.0, 30.0]

    def test_an_operator_that_just_started_says_what_was_said(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Until it has asked the pods itself the condition stays: no flapping with every new leader."""
        desk.world.edit(model=NEXT)
        desk.holds = {pod: text(OLD, refused=NEW) for pod in desk.pods}
        desk.settle()
        before = desk.world.agent["status"]
        monkeypatch.setattr(hot, "probe", lambda observed, now: None)
        desk.round()
        assert desk.condition("ModelSynced") == ("False", "ReloadFailed")
        assert desk.world.agent["status"]["conditions"] == before["conditions"]

    def test_pods_that_never_get_ready_are_explained_as_ever(self, world: Any) -> None:
        """A pod that crashes is the finding, not that it has not loaded a model."""
        one = Desk(world)
        one.world.unready.add(one.world.revision)
        one.settle()
        one.world.waiting("CrashLoopBackOff")
        view = one.world.view()
        assert first_finding(view).reason == "CrashLoop"


class TestReading:
    def test_what_a_pod_says(self) -> None:
        """What it runs, and what it could not load and why."""
        assert loaded(text(OLD)) == Loaded(OLD)
        assert loaded(text(OLD, NEW, "LoadFailed")) == Loaded(OLD, (NEW, "LoadFailed"))
        assert loaded(text(OLD).replace(" 1.0", " 0.0")) == Loaded()
        assert loaded("other_total 3\n") == Loaded()

    @given(st.text())
    def test_any_text_is_read(self, said: str) -> None:
        """A pod that says nonsense says nothing."""
        assert loaded(said).digest is None or "agent_model_info" in said
        assert loaded("agent_model_info{" + said) is not None


def test_times_are_not_needed(world: Any) -> None:
    """A condition without a beginning is one that begins now."""
    one = Desk(world).settle()
    assert hot.every(one.world.observed(), one.world.now + dt.timedelta(days=1)) == hot.SOONEST
