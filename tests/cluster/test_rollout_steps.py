"""Rollouts on a real API server: every way one can go, and an operator that is killed wherever it can be.

Routes are a VirtualService whose CustomResourceDefinition stands for Istio's: what it says is what is checked.
"""

from __future__ import annotations

import runpy
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ALONE, ROLLOUT = HELPER["ALONE"], HELPER["ROLLOUT"]
Desk, figures, history, walk, weights = (HELPER[name] for name in ("Desk", "figures", "history", "walk", "weights"))

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]


@pytest.fixture
def desk(istio: None, desk: Any) -> Any:
    """An agent of the test's own, once there is something to say weights to."""
    return desk


class TestIstioAbsent:
    def test_a_canary_waits_for_routes(
        self, place: Any, operator: Any, kubelet: Any, eventually: Callable[..., Any], request: pytest.FixtureRequest
    ) -> None:
        """Without Istio the condition says so and no weight moves; with it the canary goes on by itself."""
        one = Desk(place, eventually, "early")
        first = one.started()
        assert place.reason("early", "TrafficRouted") == "IstioNotInstalled"
        one.apply("agent:2")
        eventually(lambda: one.state.get("reason") == "PausedBySpec", "it is held")
        time.sleep(1)
        assert one.state.get("currentWeight", 0) == 0
        assert one.state["stableRevision"] == first
        request.getfixturevalue("istio")
        eventually(lambda: place.condition("early", "TrafficRouted")["status"] == "True", "routes appear", 40)
        one.at_pause()
        assert sorted(one.shares.values()) == [20, 80]
        place.delete("supportagents", "early")


class TestCanary:
    def test_it_goes_through_its_steps(self, desk: Any, place: Any) -> None:
        """Weights move in order, stable keeps its pods until the end, and the Service follows at the promotion."""
        first = desk.started()
        assert desk.shares == {first: 100}
        with history(place, desk.name) as seen:
            desk.apply("agent:2")
            second = desk.at_pause()
            assert desk.shares == {first: 80, second: 20}
            assert (desk.pods(first), desk.pods(second)) == (4, 1)
            assert place.get("services", desk.name)["spec"]["selector"]["supportfleet.dev/revision"] == first
            assert place.reason(desk.name, "TrafficRouted") == "Routed"
            desk.ask("resume", second)
            desk.eventually(lambda: desk.is_stable(second), "the canary is promoted", 40)
        desk.eventually(lambda: place.is_ready(desk.name), "all is well")
        assert desk.shares == {second: 100}
        assert place.get("services", desk.name)["spec"]["selector"]["supportfleet.dev/revision"] == second
        assert weights(seen) == [0, 20, 50, 100]
        desk.eventually(lambda: desk.pods(first) == 0, "stable of before goes", 20)

    def test_applying_the_same_again_moves_nothing(self, desk: Any, place: Any) -> None:
        """A GitOps tool that applies its state in a loop mid-canary changes no weight and no step."""
        desk.started()
        desk.apply("agent:2")
        desk.at_pause()
        with history(place, desk.name) as seen:
            before = place.get("supportagents", desk.name)["status"]["rollout"]
            for _ in range(30):
                desk.apply("agent:2")
            time.sleep(1)
        assert place.get("supportagents", desk.name)["status"]["rollout"] == before
        assert weights(seen) in ([], [20])

    def test_back_to_the_old_spec(self, desk: Any, place: Any) -> None:
        """Applying the stable spec again ends the rollout: no weight first, then no pods."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.apply("agent:1")
        desk.eventually(lambda: desk.shares == {first: 100}, "stable has all")
        desk.eventually(lambda: desk.is_stable(first) and desk.pods(second) == 0, "the canary goes")
        desk.eventually(lambda: place.is_ready(desk.name), "as the spec says")

    def test_another_change_meanwhile(self, desk: Any, kubelet: Any) -> None:
        """A third revision takes the second's place at step 0."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.apply("agent:3")
        desk.eventually(lambda: desk.state.get("canaryRevision") not in (None, second), "the third is the canary")
        third = desk.at_pause()
        assert desk.shares == {first: 80, third: 20}
        desk.eventually(lambda: desk.pods(second) == 0, "the second goes")


class TestRollingBack:
    def test_a_canary_that_is_never_ready(self, desk: Any, kubelet: Any, place: Any) -> None:
        """It gets no traffic, is rolled back at its deadline and stays so; a new change goes on."""
        first = desk.started()
        desk.spec["rollout"] = {**ROLLOUT, "progressDeadlineSeconds": 3}
        with kubelet.told(broken_images=("agent:2",)), history(place, desk.name) as seen:
            desk.apply("agent:2")
            desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 30)
            assert desk.shares == {first: 100}
            failed = desk.state["failedRevision"]
            desk.eventually(lambda: desk.pods(failed) == 0, "its pods go")
            desk.eventually(lambda: place.condition(desk.name, "Stalled"), "it takes a change from outside")
            desk.apply("agent:2")
            time.sleep(2)
            assert desk.state["phase"] == "RolledBack"
        assert set(weights(seen)) <= {0}
        desk.spec["rollout"] = ROLLOUT
        desk.apply("agent:3")
        third = desk.at_pause()
        desk.ask("promote", third)
        desk.eventually(lambda: desk.is_stable(third), "the next change takes over", 40)

    def test_bad_figures(self, desk: Any, kubelet: Any, place: Any) -> None:
        """A canary that errs more than allowed loses all traffic, and status says which figure, value and limit."""
        with figures() as (port, served):
            kubelet.addresses |= {"agent:7": "127.0.0.7", "agent:8": "127.0.0.8"}
            analysis = {
                "intervalSeconds": 1,
                "minSamples": 20,
                "failureLimit": 1,
                "metrics": [{"name": "errorRate", "max": 0.05}],
            }
            desk.spec["rollout"] = {**ROLLOUT, "analysis": analysis}
            desk.spec["template"] = {"image": "agent:7", "port": port}
            first = desk.started("agent:7")
            desk.spec["template"] = {"image": "agent:8", "port": port}
            desk.apply("agent:8")
            served["127.0.0.8"] = (0.0, 0.0)
            desk.at_pause()
            served.rate = (10.0, 10.0)
            desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 30)
            assert desk.shares == {first: 100}
            (outcome,) = desk.state["lastAnalysis"]
            assert outcome["metric"] == "errorRate"
            assert outcome["verdict"] == "Fail"
            assert outcome["value"] == pytest.approx(0.5, abs=0.1)
            assert outcome["threshold"] == 0.05
            assert outcome["samples"] >= 20


class TestActions:
    def test_abort_and_retry(self, desk: Any, place: Any) -> None:
        """Abort rolls the canary back; retry starts it over."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("abort", second)
        desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back")
        assert desk.shares == {first: 100}
        desk.ask("retry", second)
        assert desk.at_pause() == second

    def test_promote(self, desk: Any) -> None:
        """The remaining steps are skipped, once the pods for all traffic are ready."""
        desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted")

    def test_an_action_for_another_revision_is_ignored(self, desk: Any) -> None:
        """It was meant for what was the canary when it was asked for."""
        first = desk.started()
        desk.apply("agent:2")
        desk.at_pause()
        desk.ask("promote", "r0000000")
        time.sleep(1)
        assert desk.state["stableRevision"] == first
        assert desk.state["currentWeight"] == 20

    def test_undo(self, desk: Any, place: Any) -> None:
        """The revision before comes back with its pods, though the spec still says otherwise, and stays."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted")
        desk.eventually(lambda: desk.pods(first) == 0, "the first has no pods", 20)
        desk.ask("undo", second)
        desk.eventually(lambda: desk.is_stable(first) and desk.pods(first) == 4, "the first is back", 40)
        assert desk.shares == {first: 100}
        image = place.get("deployments", f"{desk.name}-{first}")["spec"]["template"]["spec"]["containers"][0]["image"]
        assert image == "agent:1"
        desk.apply("agent:2")
        time.sleep(1)
        assert desk.is_stable(first)


class TestWithoutIstio:
    def test_pods_are_the_shares(self, desk: Any, place: Any) -> None:
        """Weights become pods behind one Service, which selects one revision again when it is over."""
        desk.spec["traffic"] = {"provider": "None"}
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        assert (desk.pods(first), desk.pods(second)) == (4, 1)
        assert "supportfleet.dev/revision" not in place.get("services", desk.name)["spec"]["selector"]
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted", 40)
        desk.eventually(
            lambda: place.get("services", desk.name)["spec"]["selector"].get("supportfleet.dev/revision") == second
        )

    def test_what_an_operator_without_revisions_made(self, desk: Any, place: Any, kubelet: Any) -> None:
        """Its Deployment serves until the first revision is ready and the Service has turned to it; then it goes."""
        desk.spec["traffic"] = {"provider": "None"}
        pods = {"supportfleet.dev/agent": desk.name, "app.kubernetes.io/component": "agent"}
        template = {"metadata": {"labels": pods}, "spec": {"containers": [{"name": "agent", "image": "agent:0"}]}}
        spec = {"replicas": 2, "selector": {"matchLabels": pods}, "template": template}
        with kubelet.told(broken_images=("agent:1",)):
            desk.apply("agent:1")
            uid = place.get("supportagents", desk.name)["metadata"]["uid"]
            owner = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "name": desk.name, "uid": uid}
            metadata = {
                "name": desk.name,
                "ownerReferences": [{**owner, "controller": True}],
                "labels": {**pods, "app.kubernetes.io/managed-by": "supportfleet"},
            }
            place.api.request("POST", place.path("deployments"), {"metadata": metadata, "spec": spec})
            desk.eventually(lambda: place.get("services", desk.name), "the first revision comes up")
            time.sleep(1)
            assert place.get("deployments", desk.name)["spec"]["replicas"] == 2
            assert "supportfleet.dev/revision" not in place.get("services", desk.name)["spec"]["selector"]
        desk.eventually(lambda: place.is_ready(desk.name), "the first revision serves", 40)
        desk.eventually(lambda: place.get("deployments", desk.name) is None, "what was before goes", 20)
        selected = place.get("services", desk.name)["spec"]["selector"]["supportfleet.dev/revision"]
        assert desk.pods(selected) == 4


class TestKilling:
    def test_no_step_is_repeated_or_skipped(
        self, place: Any, operators: Any, kubelet: Any, eventually: Callable[..., Any], istio: None
    ) -> None:
        """Killed with -9 at each state that it writes, an operator's successor goes on to the next one and no other."""
        steps = [{"setWeight": 20}, {"setWeight": 50}, {"pause": {}}, {"setWeight": 80}]
        rollout = {**ROLLOUT, "steps": steps, "progressDeadlineSeconds": 120}
        walks = []
        for name, kills in (("steady", False), ("killed", True)):
            desk = Desk(place, eventually, name, rollout=rollout)
            operator = operators.start(*ALONE)
            first = desk.started()
            with history(place, name) as seen:
                desk.apply("agent:2")
                met, resumed = 0, False
                while (state := desk.state)["phase"] != "Idle" or state["stableRevision"] == first:
                    if kills and len(seen) > met:
                        operator.process.kill()
                        operator.process.wait(10)
                        met = len(seen)
                        assert sum(desk.shares.values()) == 100
                        operator = operators.start(*ALONE)
                    if state["phase"] == "Paused" and not resumed:
                        desk.ask("resume", state["canaryRevision"])
                        resumed = True
                    time.sleep(0.05)
            walks.append(walk(seen))
            assert operator.stop() in {0, -signal.SIGTERM}  # it may be too new to handle the signal
            place.delete("supportagents", name)
        assert walks[0] == walks[1]
        assert walks[0][-1][0] == "Idle"
