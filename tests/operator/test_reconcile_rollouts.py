"""Rollouts as the reconciler carries them out: what is asked of the decision, and what its answers do to children."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from supportfleet_operator.cluster.resources import ObjectRef
from supportfleet_operator.reconcile import measuring
from supportfleet_operator.reconcile.observe import revision_of
from supportfleet_operator.reconcile.policies import traffic

REVISION = "supportfleet.dev/revision"
DATABASE = {"secretRef": {"name": "db"}}
ISTIO = {"provider": "Istio", "hosts": ["desk.example.com"]}
SERVED = frozenset({"VirtualService"})
CANARY = {"strategy": "Canary", "steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]}


def canary(world: Any, **more: Any) -> Any:
    """An agent on its first image, with Istio."""
    one = world(**{"database": DATABASE, "replicas": 4, "rollout": CANARY, "traffic": ISTIO, **more})
    one.served = SERVED
    return one.applied()


def next_image(one: Any, image: str = "agent:2") -> Any:
    return one.edit(template={"image": image}).settle()


def shares(one: Any) -> dict[str, int]:
    route = one.child("VirtualService")["spec"]["http"][-1]["route"]
    return {entry["destination"]["host"].removeprefix("desk-"): entry["weight"] for entry in route}


def selected(one: Any) -> str | None:
    chosen: str | None = one.objects[ObjectRef("Service", "shop", "desk")]["spec"]["selector"].get(REVISION)
    return chosen


def pods(one: Any, revision: str) -> int:
    return int(one.child("Deployment", revision)["spec"]["replicas"])


def conditions(one: Any) -> dict[str, tuple[str, str]]:
    return {told["type"]: (told["status"], told["reason"]) for told in one.status()["conditions"]}


class TestRouting:
    def test_routes_follow_the_weights(self, world: Any) -> None:
        """With Istio the Service stays with stable until the promotion, and the routes carry the canary's share."""
        one = canary(world)
        first = one.revision
        next_image(one)
        second = one.revision
        assert shares(one) == {first: 75, second: 25}
        assert selected(one) == first
        assert (pods(one, first), pods(one, second)) == (4, 1)
        one.ask("promote", second).settle()
        assert shares(one) == {second: 100}
        assert selected(one) == second
        assert conditions(one)["TrafficRouted"] == ("True", "Routed")

    def test_without_routes_pods_are_the_shares(self, world: Any) -> None:
        """The Service selects all pods while two revisions share the traffic, and one when it is over."""
        one = canary(world, traffic={"provider": "None"})
        first = one.revision
        assert selected(one) == first
        next_image(one)
        assert selected(one) is None
        one.ask("abort", one.revision).settle()
        assert selected(one) == first
        assert "TrafficRouted" not in conditions(one)

    def test_a_canary_waits_for_istio(self, world: Any) -> None:
        """Without its kind nothing is routed, so no weight moves; the condition says what to do."""
        one = canary(world)
        one.served = frozenset()
        next_image(one)
        assert one.rollout.get("currentWeight", 0) == 0
        assert conditions(one)["TrafficRouted"] == ("False", "IstioNotInstalled")
        assert "install Istio" in traffic.check(one.view()).message
        one.served = SERVED
        one.settle()
        assert one.rollout["currentWeight"] == 25

    def test_matched_requests_wait_for_a_ready_pod(self, world: Any) -> None:
        """Requests that a header chooses go to the canary once it can answer, and to stable when it cannot."""
        match = [{"headers": {"user-agent": {"regex": ".*beta.*"}}}]
        one = canary(world, rollout={**CANARY, "match": match})
        next_image(one)
        assert one.child("VirtualService")["spec"]["http"][0]["name"] == "matched"
        one.unready.add(one.revision)
        one.rolled_out().settle()
        assert [route["name"] for route in one.child("VirtualService")["spec"]["http"]] == ["weighted"]


class TestRevisions:
    def test_an_old_revision_is_rendered_from_its_snapshot(self, world: Any) -> None:
        """Stable keeps the image it was made with while the spec has another."""
        one = canary(world)
        first = one.revision
        next_image(one).edit(replicas=8).settle()
        found = one.child("Deployment", first)
        assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "agent:1"
        assert found["spec"]["replicas"] == 8

    def test_a_revision_without_a_snapshot_is_left_alone(self, world: Any) -> None:
        """Somebody deleted the ControllerRevision of stable: its pods go on."""
        one = canary(world)
        first = one.revision
        next_image(one)
        one.objects = {
            ref: live
            for ref, live in one.objects.items()
            if ref.name != f"desk-{first}" or ref.kind != "ControllerRevision"
        }
        one.settle()
        assert pods(one, first) == 4
        assert shares(one) == {first: 75, one.revision: 25}

    def test_history_is_bounded(self, world: Any) -> None:
        """Old revisions beyond the limit go with everything they have."""
        one = canary(world, rollout={"revisionHistoryLimit": 2})
        for number in range(2, 9):
            next_image(one, f"agent:{number}").after(3600).settle()
        kinds = ("ControllerRevision", "Deployment", "ConfigMap")
        for kind in kinds:
            assert sum(1 for ref in one.objects if ref.kind == kind) <= 4
        assert {revision_of(live) for ref, live in one.objects.items() if ref.kind == "Deployment"} == {
            revision_of(live) for ref, live in one.objects.items() if ref.kind == "ControllerRevision"
        }

    def test_a_canarys_autoscaler_never_touches_stables(self, world: Any) -> None:
        """Each has its own, over its own pods, and stable's minimum keeps its pods during the rollout."""
        scaling = {"minReplicas": 2, "maxReplicas": 9}
        requests = {"resources": {"requests": {"cpu": "1"}}}
        one = canary(world, autoscaling=scaling, template={"image": "agent:1", **requests})
        first = one.revision
        one.child("Deployment", first)["spec"]["replicas"] = 7
        one.edit(template={"image": "agent:2", **requests}).settle()
        target = {
            revision_of(live): live["spec"]
            for ref, live in one.objects.items()
            if ref.kind == "HorizontalPodAutoscaler"
        }
        assert target[first]["minReplicas"] == 7
        assert target[one.revision]["scaleTargetRef"]["name"] == f"desk-{one.revision}"
        assert pods(one, first) == 7


class TestRollingBack:
    def failed(self, world: Any) -> tuple[Any, str, str]:
        one = canary(world)
        first = one.revision
        one.edit(template={"image": "agent:2"})
        one.unready.add(one.revision)
        one.settle().after(601).settle()
        return one, first, one.revision

    def test_it_says_so_and_stays(self, world: Any) -> None:
        """Ready is False and Stalled True with the reason, the routes are stable's, and nothing is tried again."""
        one, first, second = self.failed(world)
        assert conditions(one)["Ready"] == ("False", "RolledBack")
        assert conditions(one)["Reconciling"] == ("True", "RolledBack")
        assert shares(one) == {first: 100}
        one.after(60).settle()
        assert conditions(one)["Stalled"] == ("True", "RolledBack")
        assert pods(one, second) == 0
        one.after(36_000).settle()
        assert one.rollout["phase"] == "RolledBack"

    def test_going_back_heals(self, world: Any) -> None:
        """The spec of before is the stable revision: Ready, at once."""
        one, first, _ = self.failed(world)
        one.edit(template={"image": "agent:1"}).settle()
        assert one.revision == first
        assert conditions(one)["Ready"][0] == "True"

    def test_undo_is_reported_as_what_it_is(self, world: Any) -> None:
        """The spec asks for another revision than the one that a person went back to."""
        one = canary(world)
        first = one.revision
        next_image(one).ask("promote", one.revision).settle()
        one.ask("undo", one.revision, "2").settle()
        assert one.rollout["stableRevision"] == first
        assert conditions(one)["Ready"] == ("False", "Undone")


class TestModels:
    def test_a_canary_waits_for_its_model_alone(self, world: Any) -> None:
        """While the canary's model is being verified stable is put right and scaled as ever."""
        model = {"uri": "s3://models/intent", "version": "1", "digest": world.digest}
        one = canary(world, model=model)
        first = one.revision
        one.edit(model={**model, "digest": "sha256:" + "b" * 64})
        found = one.step()
        assert found.gate.state == "Running"
        job = next(
            live
            for ref, live in one.objects.items()
            if ref.name == found.rendered.revisions[one.revision].model_job_name
        )
        job["status"] = {"active": 1}
        one.child("Deployment", first)["spec"]["replicas"] = 1
        one.step()
        assert pods(one, first) == 4
        with pytest.raises(StopIteration):
            one.child("Deployment", one.revision)
        assert one.status()["model"]["digest"] == world.digest

    def test_a_model_that_never_comes_is_a_revision_that_never_comes(self, world: Any) -> None:
        """The deadline holds while the model is waited for; the rollback says why, and stable serves."""
        model = {"uri": "s3://models/intent", "version": "1", "digest": world.digest}
        one = canary(world, model=model)
        first = one.revision
        one.edit(model={**model, "digest": "sha256:" + "b" * 64})
        for _ in range(8):
            found = one.step()
            for ref, live in one.objects.items():
                if ref.name == found.rendered.revisions[one.revision].model_job_name:
                    live["status"] = {"active": 1}
        one.report("ModelSynced", "False", reason="Downloading")
        one.after(601)
        for _ in range(4):
            one.step()
        assert one.rollout["phase"] in {"Aborting", "RolledBack"}
        assert "Downloading" in one.rollout["message"]
        assert shares(one) == {first: 100}
        assert pods(one, first) == 4


class TestBefore:
    """An agent that an operator without revisions made."""

    def old(self, world: Any) -> Any:
        one = world(database=DATABASE, replicas=4)
        for kind, name, spec in (
            ("Deployment", "desk", {"replicas": 6}),
            ("ConfigMap", "desk-config", {}),
            ("HorizontalPodAutoscaler", "desk", {"minReplicas": 2, "maxReplicas": 9}),
        ):
            metadata = {
                "name": name,
                "namespace": "shop",
                "labels": {"supportfleet.dev/agent": "desk"},
                "ownerReferences": [{"controller": True, "uid": "agent-uid"}],
            }
            versions = {"Deployment": "apps/v1", "ConfigMap": "v1", "HorizontalPodAutoscaler": "autoscaling/v2"}
            one.put({"apiVersion": versions[kind], "kind": kind, "metadata": metadata, "spec": spec})
        return one

    def test_it_serves_until_a_revision_does(self, world: Any) -> None:
        """The Service goes on selecting all pods, and nothing is taken, until the first revision is ready."""
        one = self.old(world)
        one.unready.add(one.revision)
        one.settle()
        assert selected(one) is None
        assert {"desk", "desk-config"} <= {ref.name for ref in one.objects}
        one.unready.clear()
        found = one.rolled_out().step()
        while selected(one) is None:
            assert not [gone for gone in (*found.before, *found.after) if gone.ref.name in {"desk", "desk-config"}]
            found = one.step()
        one.settle()
        assert {ref.kind for ref in one.objects if ref.name == "desk"} & {
            "Deployment",
            "HorizontalPodAutoscaler",
        } == set()
        assert "desk-config" not in {ref.name for ref in one.objects}

    def test_it_comes_up_at_the_size_that_it_had(self, world: Any) -> None:
        """Under an autoscaler the first revision needs as many pods as the old Deployment had."""
        one = self.old(world)
        requests = {"image": "agent:1", "resources": {"requests": {"cpu": "1"}}}
        one.edit(autoscaling={"minReplicas": 2, "maxReplicas": 9}, template=requests)
        one.step()
        assert pods(one, one.revision) == 6

    def test_a_suspended_one_has_no_pods(self, world: Any) -> None:
        """Suspending needs no revision to be ready."""
        one = self.old(world).edit(suspend=True).settle()
        assert "Deployment" not in {ref.kind for ref in one.objects if ref.name == "desk"}


class TestMeasuring:
    ANALYSIS: ClassVar = {"intervalSeconds": 30, "minSamples": 10, "metrics": [{"name": "errorRate", "max": 0.05}]}

    def text(self, good: float, bad: float) -> str:
        lines = [
            "# TYPE agent_request_total counter",
            f'agent_request_total{{status="200",intent="other"}} {good}',
            f'agent_request_total{{status="500",intent="none"}} {bad}',
        ]
        return "\n".join([*lines, ""])

    def test_only_while_a_canary_has_traffic(self, world: Any) -> None:
        """Pods of stable and canary are asked at the agent's port, and nobody while nothing is being rolled out."""
        one = canary(world, rollout={**CANARY, "analysis": self.ANALYSIS})
        first = one.revision
        assert measuring.probe(one.observed(), one.now) is None
        next_image(one)
        targets = measuring.probe(one.observed(), one.now).pods
        assert {name: len(found) for name, found in targets.items()} == {first: 4, one.revision: 1}
        assert {target.port for found in targets.values() for target in found.values()} == {8080}

    def test_bad_figures_take_the_traffic_first(self, world: Any) -> None:
        """One measurement over the limit: weight 0 in the same round, pods later."""
        one = canary(world, rollout={**CANARY, "analysis": {**self.ANALYSIS, "failureLimit": 1}})
        first = one.revision
        next_image(one)
        second = one.revision
        for number in range(3):
            probe = measuring.probe(one.observed(), one.now)
            assert probe is not None
            targets = probe.pods
            bad = {first: 0.0, second: 50.0 * number}
            one.figures = {
                name: {pod: self.text(100.0 * number, bad[name]) for pod in found} for name, found in targets.items()
            }
            one.step()
            one.figures = None
            if one.rollout["phase"] in {"Aborting", "RolledBack"}:
                break
            one.after(30).settle()
        assert shares(one) == {first: 100}
        assert pods(one, second) == 1
        one.settle().after(60).settle()
        assert conditions(one)["Ready"] == ("False", "RolledBack")
        assert pods(one, second) == 0


class TestCrashes:
    def states(self, world: Any, crash_at: int) -> list[tuple[Any, ...]]:
        """A whole rollout; the operator dies once after it wrote a state and before it did anything about it."""
        steps = [{"setWeight": 25}, {"pause": {"durationSeconds": 10}}, {"setWeight": 50}, {"setWeight": 75}]
        one = canary(world, rollout={"strategy": "Canary", "steps": steps})
        one.edit(template={"image": "agent:2"})
        seen: list[tuple[Any, ...]] = []
        for number in range(80):
            found = one.plan()
            state = found.decision.state.to_status().manifest()
            moved = state != one.rollout
            one.agent["status"]["rollout"] = state
            if number != crash_at:
                one.carry_out(found)
            step = (state["phase"], state.get("currentStep"), state.get("currentWeight"))
            if not seen or seen[-1] != step:  # a crash may add that it waits for pods, in the same place
                seen.append(step)
            if not moved and found.is_empty:
                one.after(5)
            assert sum(shares(one).values()) == 100
        assert one.rollout["stableRevision"] == one.revision
        return seen

    def test_no_step_is_repeated_or_skipped(self, world: Any) -> None:
        """Wherever it dies, the states that follow are those of a rollout without a crash."""
        steady = self.states(world, -1)
        assert ("Stepping", 0, 25) in steady or ("Stepping", 1, 25) in steady
        for number in range(25):
            assert self.states(world, number) == steady
