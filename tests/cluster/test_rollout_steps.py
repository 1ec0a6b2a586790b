"""Rollouts on a real API server: every way one can go, and an operator that is killed wherever it can be.

Routes are a VirtualService whose CustomResourceDefinition stands for Istio's: what it says is what is checked.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

ALONE = ("--no-leader-election",)
DATABASE = {"secretRef": {"name": "postgres-credentials"}}
STEPS = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {"durationSeconds": 1}}]
ROLLOUT = {"strategy": "Canary", "steps": STEPS, "scaleDownDelaySeconds": 1, "progressDeadlineSeconds": 20}
ISTIO = {"provider": "Istio", "hosts": ["desk.example.com"], "gateways": ["istio-system/local"]}
NAME = "virtualservices.networking.istio.io"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ISTIO_CRD = {
    "metadata": {"name": NAME},
    "spec": {
        "group": "networking.istio.io",
        "names": {"kind": "VirtualService", "plural": "virtualservices", "singular": "virtualservice"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}

pytestmark = pytest.mark.timeout(300)


def manifest(name: str, image: str = "agent:1", **spec: Any) -> dict[str, Any]:
    base = {"replicas": 4, "database": DATABASE, "template": {"image": image}, "rollout": ROLLOUT}
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }


class Desk:
    """One agent, as those see it who roll it out."""

    def __init__(self, place: Any, eventually: Callable[..., Any], name: str, **spec: Any) -> None:
        self.place, self.eventually, self.name = place, eventually, name
        self.spec = {"traffic": ISTIO, **spec}

    def apply(self, image: str) -> None:
        self.place.apply(manifest(self.name, image, **self.spec))

    def started(self, image: str = "agent:1") -> str:
        """Stable on its first image; returns the revision."""
        self.apply(image)
        self.eventually(lambda: self.place.is_ready(self.name), "the first revision serves", 40)
        return str(self.state["stableRevision"])

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.place.get("supportagents", self.name).get("status", {}).get("rollout") or {}
        return found

    @property
    def shares(self) -> dict[str, int]:
        """What the routes say: percent by revision."""
        route = self.place.get("virtualservices", self.name)["spec"]["http"][-1]["route"]
        return {one["destination"]["host"].removeprefix(f"{self.name}-"): one["weight"] for one in route}

    def pods(self, revision: str) -> int:
        found = self.place.get("deployments", f"{self.name}-{revision}")
        return int(found["spec"]["replicas"]) if found else 0

    def ask(self, action: str, revision: str) -> None:
        prefix = "supportfleet.dev/action"
        words = {prefix: action, f"{prefix}-revision": revision, f"{prefix}-id": f"{action}-{time.time()}"}
        self.place.patch("supportagents", self.name, {"metadata": {"annotations": words}})

    def at_pause(self) -> str:
        """Waits until the canary has its first share and a person has to say more; returns its revision."""

        def paused() -> bool:
            return bool(self.state.get("currentStep") == 1 and self.state.get("phase") == "Paused")

        self.eventually(paused, "the canary waits at its pause", 40)
        return str(self.state["canaryRevision"])

    def is_stable(self, revision: str) -> bool:
        return bool(self.state["stableRevision"] == revision and self.state["phase"] == "Idle")


@pytest.fixture(scope="module", autouse=True)
def secrets(place: Any) -> None:
    body = {"metadata": {"name": "postgres-credentials"}, "stringData": {"DATABASE_URL": "postgresql://u:p@h/d"}}
    place.api.request("POST", place.path("secrets"), body)


@pytest.fixture(scope="module")
def istio(place: Any) -> Iterator[None]:
    """Istio's kind, as far as the API server is concerned."""
    place.api.request(
        "POST", CRDS, {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **ISTIO_CRD}
    )
    yield
    place.api.request("DELETE", f"{CRDS}/{NAME}")


@pytest.fixture
def desk(
    request: pytest.FixtureRequest, place: Any, operator: Any, kubelet: Any, istio: None, eventually: Callable[..., Any]
) -> Iterator[Desk]:
    """An agent of the test's own."""
    name = "d" + format(abs(hash(request.node.name)) % 10**8, "d")
    yield Desk(place, eventually, name)
    place.delete("supportagents", name)


class TestIstioAbsent:
    def test_a_canary_waits_for_routes(
        self, place: Any, operator: Any, kubelet: Any, eventually: Callable[..., Any], request: pytest.FixtureRequest
    ) -> None:
        """Without Istio the condition says so and no weight moves; with it the canary goes on by itself."""
        one = Desk(place, eventually, "early")
        first = one.started()
        assert place.reason("early", "TrafficRouted") == "IstioNotInstalled"
        one.apply("agent:2")
        eventually(lambda: one.state["reason"] == "PausedBySpec", "it is held")
        time.sleep(1)
        assert one.state.get("currentWeight", 0) == 0
        assert one.state["stableRevision"] == first
        request.getfixturevalue("istio")
        eventually(lambda: place.condition("early", "TrafficRouted")["status"] == "True", "routes appear", 40)
        one.at_pause()
        assert sorted(one.shares.values()) == [20, 80]
        place.delete("supportagents", "early")


class TestCanary:
    def test_it_goes_through_its_steps(self, desk: Desk, place: Any) -> None:
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

    def test_applying_the_same_again_moves_nothing(self, desk: Desk, place: Any) -> None:
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

    def test_back_to_the_old_spec(self, desk: Desk, place: Any) -> None:
        """Applying the stable spec again ends the rollout: no weight first, then no pods."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.apply("agent:1")
        desk.eventually(lambda: desk.shares == {first: 100}, "stable has all")
        desk.eventually(lambda: desk.is_stable(first) and desk.pods(second) == 0, "the canary goes")
        desk.eventually(lambda: place.is_ready(desk.name), "as the spec says")

    def test_another_change_meanwhile(self, desk: Desk, kubelet: Any) -> None:
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
    def test_a_canary_that_is_never_ready(self, desk: Desk, kubelet: Any, place: Any) -> None:
        """It gets no traffic, is rolled back at its deadline and stays so; a new change goes on."""
        desk.spec["rollout"] = {**ROLLOUT, "progressDeadlineSeconds": 3}
        first = desk.started()
        with kubelet.told(broken_images=("agent:2",)), history(place, desk.name) as seen:
            desk.apply("agent:2")
            desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 30)
            assert desk.shares == {first: 100}
            assert place.condition(desk.name, "Stalled")["status"] == "True"
            failed = desk.state["failedRevision"]
            desk.eventually(lambda: desk.pods(failed) == 0, "its pods go")
            desk.apply("agent:2")
            time.sleep(2)
            assert desk.state["phase"] == "RolledBack"
        assert set(weights(seen)) <= {0}
        desk.apply("agent:3")
        third = desk.at_pause()
        desk.ask("promote", third)
        desk.eventually(lambda: desk.is_stable(third), "the next change takes over", 40)

    def test_bad_figures(self, desk: Desk, kubelet: Any, place: Any) -> None:
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
    def test_abort_and_retry(self, desk: Desk, place: Any) -> None:
        """Abort rolls the canary back; retry starts it over."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("abort", second)
        desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back")
        assert desk.shares == {first: 100}
        desk.ask("retry", second)
        assert desk.at_pause() == second

    def test_promote(self, desk: Desk) -> None:
        """The remaining steps are skipped, once the pods for all traffic are ready."""
        desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted")

    def test_an_action_for_another_revision_is_ignored(self, desk: Desk) -> None:
        """It was meant for what was the canary when it was asked for."""
        first = desk.started()
        desk.apply("agent:2")
        desk.at_pause()
        desk.ask("promote", "r0000000")
        time.sleep(1)
        assert desk.state["stableRevision"] == first
        assert desk.state["currentWeight"] == 20

    def test_undo(self, desk: Desk, place: Any) -> None:
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
    def test_pods_are_the_shares(self, desk: Desk, place: Any) -> None:
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

    def test_what_an_operator_without_revisions_made(self, desk: Desk, place: Any, kubelet: Any) -> None:
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
            desk.eventually(lambda: desk.state.get("canaryRevision"), "the first revision comes up")
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
        steps = [{"setWeight": 20}, {"setWeight": 50}, {"pause": {"durationSeconds": 1}}, {"setWeight": 80}]
        rollout = {**ROLLOUT, "steps": steps, "progressDeadlineSeconds": 120}
        walks = []
        for name, kills in (("steady", False), ("killed", True)):
            desk = Desk(place, eventually, name, rollout=rollout)
            operator = operators.start(*ALONE)
            desk.started()
            with history(place, name) as seen:
                desk.apply("agent:2")
                met = 0
                while desk.state["phase"] != "Idle" or met == 0:
                    if kills and len(seen) > met:
                        operator.process.kill()
                        operator.process.wait(10)
                        met = len(seen)
                        assert sum(desk.shares.values()) == 100
                        operator = operators.start(*ALONE)
                    met = met or len(seen)
                    time.sleep(0.05)
            walks.append(walk(seen))
            assert operator.stop() == 0
            place.delete("supportagents", name)
        assert walks[0] == walks[1]
        assert walks[0][-1][0] == "Idle"


def walk(seen: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a rollout went through: phase, step and weight, each once in a row."""
    states = [(one["phase"], one.get("currentStep"), one.get("currentWeight")) for one in seen]
    return [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]


class Served(dict[str, tuple[float, float]]):
    """Counters by address: successes and errors; while there is a rate they grow with every look."""

    rate = (0.0, 0.0)


@contextmanager
def figures() -> Iterator[tuple[int, Served]]:
    """Serves what pods serve at /metrics, for addresses of this machine."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = self.connection.getsockname()[0]
            good, bad = served.get(address, (1000.0, 0.0))
            good, bad = good + served.rate[0] + 5, bad + (served.rate[1] + 5 if address.endswith(".8") else 0)
            if served.rate != (0.0, 0.0):
                served[address] = (good, bad)
            text = (
                "# TYPE agent_request_total counter\n"
                f'agent_request_total{{status="200",intent="refund"}} {good}\n'
                f'agent_request_total{{status="500",intent="none"}} {bad}\n'
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], served
    server.shutdown()
    server.server_close()
    thread.join(5)


@contextmanager
def history(place: Any, name: str) -> Iterator[list[dict[str, Any]]]:
    """Every state of the rollout that was ever written, in order."""
    seen: list[dict[str, Any]] = []
    version = place.get("supportagents", name)["metadata"]["resourceVersion"]
    url = place.api.server + place.path("supportagents")
    url += f"?watch=true&resourceVersion={version}&fieldSelector=metadata.name={name}&timeoutSeconds=120"
    stream = urllib.request.urlopen(url, timeout=130, context=place.api.tls)  # noqa: S310 - the cluster under test

    def read() -> None:
        try:
            for line in stream:
                state = json.loads(line)["object"].get("status", {}).get("rollout")
                if state is not None and (not seen or seen[-1] != state):
                    seen.append(state)
        except (OSError, ValueError, AttributeError):
            return  # closed

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield seen
    time.sleep(0.3)
    stream.close()
    thread.join(2)


def weights(seen: list[dict[str, Any]]) -> list[int]:
    """The canary's weights in order, each once."""
    found: list[int] = []
    for state in seen:
        weight = state.get("currentWeight", 0)
        if state.get("canaryRevision") and (not found or found[-1] != weight):
            found.append(weight)
    return found
