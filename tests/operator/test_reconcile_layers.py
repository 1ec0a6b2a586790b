"""Layers as they are reconciled: how many pods each has in each revision, and when a revision can be sent requests."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.reconcile import hot, layers, measuring
from supportfleet_operator.reconcile.policies import crash_loop, first_finding, quota, scaling
from supportfleet_operator.rollout import Decision

DATABASE = {"secretRef": {"name": "db"}}
KEY = [{"name": "TOOLS_API_KEY", "valueFrom": {"secretKeyRef": {"name": "tools", "key": "key"}}}]
CANARY = {"strategy": "Canary", "steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]}
COUNTS = st.integers(0, 100)


def template(image: str = "agent:1") -> dict[str, Any]:
    return {"image": image, "env": KEY}


def layered(world: Any, **more: Any) -> Any:
    """An agent in layers, on its first image: four gateways, eight workers, two pods of tools."""
    spec = {
        "topology": "Layered",
        "template": template(),
        "database": DATABASE,
        "replicas": 4,
        "worker": {"replicas": 8},
        "tools": {"replicas": 2},
        "rollout": CANARY,
        "traffic": {"provider": "Istio"},
        **more,
    }
    one = world(**spec)
    one.served = frozenset({"VirtualService"})
    return one.applied()


def pods(one: Any, revision: str) -> tuple[int, int, int]:
    """Pods of gateway, worker and tools."""
    found = (one.child("Deployment", revision, layer)["spec"]["replicas"] for layer in (None, "worker", "tools"))
    gateway, worker, tools = found
    return gateway, worker, tools


def ready(one: Any) -> tuple[str, str]:
    told = next(each for each in one.status()["conditions"] if each["type"] == "Ready")
    return told["status"], told["message"]


class TestShare:
    @given(COUNTS, COUNTS, COUNTS)
    def test_it_follows_the_gateway(self, whole: int, gateway: int, gateways: int) -> None:
        """None beside no gateway; else at least one and never more than all, which a whole gateway gets."""
        found = layers.share(whole, gateway, gateways)
        assert (found == 0) == (gateway == 0)
        if gateway:
            assert 1 <= found <= max(1, whole)
            assert found * max(gateway, gateways) >= whole * gateway or found == whole
        if gateway >= gateways and gateway:
            assert found == max(1, whole)

    @given(COUNTS, COUNTS, COUNTS)
    def test_more_gateway_is_never_less_of_a_layer(self, whole: int, gateway: int, gateways: int) -> None:
        """A canary that is given more pods loses none behind them."""
        assert layers.share(whole, gateway, gateways) <= layers.share(whole, gateway + 1, gateways)


class TestSizes:
    def test_a_canarys_layers_are_sized_by_its_gateway(self, world: Any) -> None:
        """At 25 % and 50 % a canary has that share of each layer, and stable keeps all of its own until it goes."""
        one = layered(world)
        first = one.revision
        assert pods(one, first) == (4, 8, 2)
        one.edit(template=template("agent:2")).settle()
        second = one.revision
        assert pods(one, second) == (1, 2, 1)
        one.ask("resume", second).settle()
        assert pods(one, second) == (2, 4, 1)
        assert pods(one, first) == (4, 8, 2)
        one.ask("promote", second, "2").settle()
        assert pods(one, second) == (4, 8, 2)
        assert pods(one, first) == (4, 8, 2)
        one.after(3600).settle()
        assert pods(one, first) == (0, 0, 0)
        assert pods(one, second) == (4, 8, 2)

    def test_what_an_autoscaler_came_to_is_the_whole(self, world: Any) -> None:
        """Of twenty workers that stable's autoscaler asks for a canary at a quarter of the gateways has five."""
        one = layered(world, worker={"replicas": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 40}})
        one.child("Deployment", one.revision, "worker")["spec"]["replicas"] = 20
        stable = one.revision
        one.edit(template=template("agent:2")).settle()
        assert one.child("HorizontalPodAutoscaler", one.revision, "worker")["spec"]["minReplicas"] == 5
        assert one.child("HorizontalPodAutoscaler", stable, "worker")["spec"]["minReplicas"] == 20

    def test_a_suspended_agent_has_none(self, world: Any) -> None:
        """spec.suspend stops every layer, and without it all come back."""
        one = layered(world)
        one.edit(suspend=True).settle()
        assert pods(one, one.revision) == (0, 0, 0)
        one.edit(suspend=False).settle()
        assert pods(one, one.revision) == (4, 8, 2)

    def test_a_layers_number_changes_no_revision(self, world: Any) -> None:
        """More workers are more pods of the same Deployment."""
        one = layered(world)
        first = one.revision
        one.edit(worker={"replicas": 11}).settle()
        assert one.revision == first
        assert pods(one, first) == (4, 11, 2)


class TestTopology:
    def test_layers_come_and_go_as_revisions_do(self, world: Any) -> None:
        """Combined to Layered is a rollout, and so is the way back, on which workers stay until their gateway goes."""
        one = layered(world, topology="Combined", worker=None, tools=None)
        first = one.revision
        assert "layers" not in one.status()
        one.edit(topology="Layered", worker={"replicas": 8}, tools={"replicas": 2}).settle()
        second = one.revision
        assert second != first
        assert pods(one, second) == (1, 2, 1)
        one.ask("promote", second).settle().after(3600).settle()
        assert pods(one, second) == (4, 8, 2)
        one.edit(worker={"replicas": 9}).settle()
        one.edit(topology="Combined", worker=None, tools=None).settle()
        assert one.revision == first
        assert pods(one, second) == (4, 9, 2)
        one.ask("promote", first, "2").settle()
        assert pods(one, second) == (4, 9, 2)
        assert [layer["replicas"] for layer in one.status()["layers"]] == [9, 2]
        one.after(3600).settle()
        assert pods(one, second) == (0, 0, 0)
        assert "layers" not in one.status()

    def test_layers_are_undone_to_at_their_size(self, world: Any) -> None:
        """Going back from Combined to the revision with layers brings them back, though the spec has none any more."""
        one = layered(world)
        first = one.revision
        one.edit(topology="Combined", worker=None, tools=None).settle()
        one.ask("promote", one.revision).settle().after(3600).settle()
        assert pods(one, first) == (0, 0, 0)
        one.ask("undo", one.revision, "2").settle()
        assert one.rollout["stableRevision"] == first
        assert pods(one, first) == (4, 8, 2)

    def test_the_policy_spares_layers_as_long_as_there_are_any(self, world: Any) -> None:
        """While the revision of before has tools, the agent's NetworkPolicy does not open them."""
        one = layered(world)
        one.edit(topology="Combined", worker=None, tools=None).settle()

        def spared() -> bool:
            return "matchExpressions" in one.child("NetworkPolicy")["spec"]["podSelector"]

        assert spared()
        one.ask("promote", one.revision).settle().after(3600).settle()
        assert not spared()


class TestReadiness:
    def test_a_canary_needs_a_pod_of_each_layer(self, world: Any) -> None:
        """A canary without a ready worker gets no weight, and its message says so; with one it goes on."""
        one = layered(world)
        found = one.edit(template=template("agent:2"))
        one.unready.add(f"{one.revision}/worker")
        found.settle()
        assert one.rollout.get("currentWeight", 0) == 0
        assert one.observed().ready_pods(one.revision) == 0
        decision = one.plan().decision
        assert isinstance(decision, Decision)
        assert "no pod of worker is ready" in decision.message
        assert ready(one)[1].endswith("; no pod of worker is ready")
        one.unready.clear()
        one.rolled_out().settle()
        assert one.rollout["currentWeight"] == 25

    def test_an_agent_is_ready_once_each_layer_is(self, world: Any) -> None:
        """Ready is false while fewer pods of any layer are ready than there should be, and names it."""
        one = layered(world)
        assert ready(one) == ("True", "4 pods are ready, 4 are needed, 2 of 2 in tools, 8 of 8 in worker")
        one.unready.add(f"{one.revision}/tools")
        one.rolled_out()
        assert ready(one) == ("False", "0 of 2 tools pods are ready")

    def test_an_agent_of_no_pods_needs_none_of_its_layers(self, world: Any) -> None:
        """With no replicas an agent is Ready without a pod of any layer."""
        one = layered(world, replicas=0)
        assert pods(one, one.revision) == (0, 0, 0)
        assert ready(one)[0] == "True"

    def test_the_status_counts_gateways_and_tells_layers(self, world: Any) -> None:
        """Replicas and selector are the gateway's, as the scale subresource needs them; layers are told beside."""
        one = layered(world)
        one.unready.add(f"{one.revision}/worker")
        told = one.rolled_out().status()
        assert (told["replicas"], told["readyReplicas"]) == (4, 4)
        assert "app.kubernetes.io/component=agent" in told["selector"]
        assert told["layers"] == [
            {"name": "worker", "replicas": 8, "readyReplicas": 0},
            {"name": "tools", "replicas": 2, "readyReplicas": 2},
        ]


class TestTrouble:
    def test_a_worker_that_crashes_is_found(self, world: Any) -> None:
        """What a worker said last is the agent's trouble, and the canary's where it is one of that."""
        one = layered(world)
        said = "TOOLS_API_KEY: TOOLS_URL needs it and it is not set"
        ended = {"exitCode": 2, "reason": "Error", "message": said}
        pod = one.waiting("CrashLoopBackOff", "back-off", component="worker")
        pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}
        found = first_finding(one.view())
        assert found is not None
        assert found.reason == crash_loop.REASON
        assert said in found.message

    def test_a_layer_over_quota_is_found(self, world: Any) -> None:
        """A layer's pods that the cluster refuses are told as the gateway's are."""
        one = layered(world)
        failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods=20"}
        one.child("Deployment", one.revision, "tools")["status"]["conditions"].append(failure)
        found = first_finding(one.view())
        assert found is not None
        assert found.reason == quota.QUOTA

    def test_a_layers_autoscaler_is_told_of(self, world: Any) -> None:
        """ScalingActive is about every autoscaler: a worker's that gets no figures makes it false."""
        one = layered(world, autoscaling={"maxReplicas": 9}, worker={"autoscaling": {"maxReplicas": 9}})
        for layer, status in ((None, "True"), ("worker", "False")):
            told = {"type": "ScalingActive", "status": status, "reason": "FailedGetResourceMetric"}
            one.child("HorizontalPodAutoscaler", one.revision, layer)["status"] = {"conditions": [told]}
        found = scaling.check(one.view())
        assert found is not None
        assert found.status == "False"
        assert found.message.startswith("spec.worker.autoscaling: the autoscaler gets no figures")

    def test_what_somebody_changed_or_deleted_comes_back(self, world: Any) -> None:
        """A layer's Deployment that is gone, or that has another image, is put right, and no other is touched."""
        one = layered(world)
        worker, tools = (one.child("Deployment", one.revision, layer) for layer in ("worker", "tools"))
        one.objects = {ref: live for ref, live in one.objects.items() if live is not worker}
        tools["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
        assert [write.ref.name for write in one.plan().writes] == [
            tools["metadata"]["name"],
            worker["metadata"]["name"],
        ]
        one.settle()
        assert pods(one, one.revision) == (4, 8, 2)

    def test_a_deployment_that_an_autoscaler_owns_comes_back_with_its_layers_pods(self, world: Any) -> None:
        """A worker's Deployment that was deleted begins with the worker's minimum, whatever the gateway has."""
        one = layered(world, worker={"replicas": 6, "autoscaling": {"minReplicas": 6, "maxReplicas": 9}})
        gone = one.child("Deployment", one.revision, "worker")
        one.objects = {ref: live for ref, live in one.objects.items() if live is not gone}
        (write,) = one.plan().writes
        assert (write.ref.name, write.replicas) == (gone["metadata"]["name"], 6)


class TestFigures:
    def test_requests_and_answers_are_both_read(self, world: Any) -> None:
        """The analysis reads gateways, which count requests, and workers, which count answers; tools count neither."""
        analysis = {"metrics": [{"name": "errorRate", "max": 0.1}], "intervalSeconds": 10}
        one = layered(world, rollout={**CANARY, "analysis": analysis, "steps": [{"setWeight": 25}, {"analysis": {}}]})
        one.edit(template=template("agent:2")).settle()
        probe = measuring.probe(one.observed(), one.now)
        assert probe is not None
        assert sorted(probe.pods[one.revision]) == [
            f"run-{one.revision}-0",
            f"run-{one.revision}-worker-0",
            f"run-{one.revision}-worker-1",
        ]

    @given(COUNTS, COUNTS, st.integers(2, 50))
    def test_as_large_a_share_of_each_is_read(self, gateways: int, workers: int, most: int) -> None:
        """All pods are read where there is room; else workers by their share, and at least one of each sort."""
        found = measuring.of_workers(gateways, workers, most)
        if gateways + workers <= most:
            assert found == workers
        elif gateways and workers:
            assert 1 <= found < most
            assert abs(found / most - workers / (gateways + workers)) <= 1 / most

    def test_workers_are_who_loads_a_model(self, world: Any) -> None:
        """Pods that have the model are workers: gateways and tools load none."""
        model = {"uri": "s3://models/intent", "version": "1", "digest": world.digest}
        one = layered(world, model=model)
        assert one.status()["model"]["loadedPods"] == 8
        one = layered(world, model={**model, "reload": "Hot"})
        probe = hot.probe(one.observed(), one.now)
        assert probe is not None
        assert sorted(probe.pods[one.revision]) == [f"run-{one.revision}-worker-{number}" for number in range(8)]
