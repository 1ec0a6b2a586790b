"""Rollouts on a real API server with the definitions that Istio and the Gateway API publish: routes, figures, models.

Nobody routes here: what the routes say is what is checked, and how soon they say it.
"""

from __future__ import annotations

import json
import runpy
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ROLLOUT, ISTIO, CRDS = HELPER["ROLLOUT"], HELPER["ISTIO"], HELPER["CRDS"]
Desk, figures, serving = HELPER["Desk"], HELPER["figures"], HELPER["serving"]
watching, shares_of = HELPER["watching"], HELPER["shares_of"]

GATEWAY = {"provider": "GatewayAPI", "hosts": ["desk.example.com"], "gateways": ["infra/web"]}
OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MODEL = {"uri": "s3://models/intent", "version": "1", "digest": OLD}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]


@pytest.fixture(scope="module")
def routed(place: Any, definitions: list[dict[str, Any]]) -> Iterator[None]:
    """All three kinds, until the end of the file."""
    kinds = {one["metadata"]["name"]: one["spec"]["names"]["kind"] for one in definitions}
    for one in definitions:
        place.api.request("POST", CRDS, one)
    HELPER["established"](place, kinds)
    yield
    HELPER["remove_definitions"](place, kinds)


@pytest.fixture
def desk(routed: None, desk: Any) -> Any:
    """An agent of the test's own, once there is something to say weights to."""
    return desk


def rules(place: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.get("httproutes", name)["spec"]["rules"]
    return found


def shares(place: Any, name: str) -> dict[str, int]:
    """What an HTTPRoute says of ordinary requests: percent by revision."""
    backends = rules(place, name)[-1]["backendRefs"]
    return {one["name"].removeprefix(f"{name}-"): one["weight"] for one in backends if one["weight"]}


class TestGatewayApi:
    def test_a_canary_waits_for_the_kind(
        self, place: Any, operator: Any, kubelet: Any, eventually: Callable[..., Any], request: pytest.FixtureRequest
    ) -> None:
        """Without it the condition says what to install and no weight moves; with it the canary goes on by itself."""
        one = Desk(place, eventually, "early", traffic=GATEWAY)
        first = one.started()
        assert place.reason("early", "TrafficRouted") == "GatewayAPINotInstalled"
        one.apply("agent:2")
        eventually(lambda: one.state.get("reason") == "PausedBySpec", "it is held")
        assert one.state["stableRevision"] == first
        request.getfixturevalue("routed")
        second = one.at_pause()
        assert shares(place, "early") == {first: 80, second: 20}
        place.delete("supportagents", "early")

    def test_weights_and_what_gateways_say(self, desk: Any, place: Any) -> None:
        """Rules follow the steps to the promotion; a Gateway that refuses the route is told in the condition."""
        desk.spec["traffic"] = GATEWAY
        first = desk.started()
        assert shares(place, desk.name) == {first: 100}
        assert place.reason(desk.name, "TrafficRouted") == "RoutePending"
        desk.apply("agent:2")
        second = desk.at_pause()
        assert shares(place, desk.name) == {first: 80, second: 20}
        parent = {"parentRef": {"name": "web", "namespace": "infra"}, "controllerName": "example.com/controller"}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for status, reason in (("False", "RouteNotAccepted"), ("True", "Routed")):
            said = {"type": "Accepted", "status": status, "reason": "Said", "message": "m", "lastTransitionTime": now}
            body = {"status": {"parents": [{**parent, "conditions": [said]}]}}
            place.patch("httproutes", desk.name, body, "status", "gateway")
            desk.eventually(lambda reason=reason: place.reason(desk.name, "TrafficRouted") == reason, reason)
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted", 40)
        assert shares(place, desk.name) == {second: 100}


class TestIstio:
    def test_copies_then_a_share_then_customers_who_stay(self, desk: Any, place: Any, audit: Any) -> None:
        """Mirror, weight and sticky routes come and go with the steps; at rest nothing is written."""
        steps = [{"setMirror": 40}, {"pause": {}}, {"setMirror": 0}, {"setWeight": 20}, {"pause": {}}]
        desk.spec["rollout"] = {**ROLLOUT, "steps": steps}
        desk.spec["traffic"] = {**ISTIO, "stickiness": {"cookie": {}, "ttlSeconds": 10}}
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        routes = {one["name"]: one for one in place.get("virtualservices", desk.name)["spec"]["http"]}
        assert routes["weighted"]["mirror"]["host"] == f"{desk.name}-{second}"
        assert routes["weighted"]["mirrorPercentage"]["value"] == 40
        assert desk.shares == {first: 100}
        desk.ask("resume", second)
        desk.eventually(lambda: desk.shares == {first: 80, second: 20}, "it has its share")
        assert place.get("destinationrules", f"{desk.name}-{second}") is not None
        audit.rest(desk.name)
        desk.ask("promote", second)
        desk.eventually(lambda: desk.is_stable(second), "it is promoted", 40)
        names = [one["name"] for one in place.get("virtualservices", desk.name)["spec"]["http"]]
        assert f"sticky-{first}" in names
        assert desk.pods(first) == 4
        desk.eventually(lambda: desk.pods(first) == 0, "its last customer is gone", 40)
        names = [one["name"] for one in place.get("virtualservices", desk.name)["spec"]["http"]]
        assert names == ["weighted"]
        audit.rest(desk.name)
        with audit(desk.name) as seen:
            time.sleep(3)
        assert audit.writes(seen) == []

    def test_a_ready_canary_gets_its_share_at_once(self, desk: Any, place: Any, kubelet: Any) -> None:
        """From its pods' readiness to its first weight in the routes in far less than two seconds."""
        desk.started()
        came: list[float] = []
        ready: list[float] = []

        def is_ready(pod: dict[str, Any]) -> bool:
            listed = pod.get("status", {}).get("conditions", ())
            return any(one["type"] == "Ready" and one["status"] == "True" for one in listed)

        with ExitStack() as watches:
            with kubelet.told(broken_images=("agent:2",)):
                desk.apply("agent:2")
                desk.eventually(lambda: desk.state.get("canaryRevision"), "the canary comes up")
                second = desk.state["canaryRevision"]
                (name,) = desk.eventually(lambda: desk.objects("pods", second), "it has its pod")
                pods = watching(place, "pods", name, is_ready, lambda: ready.append(time.monotonic()))
                routes = ("virtualservices", desk.name, shares_of, lambda: came.append(time.monotonic()))
                watches.enter_context(pods)
                watches.enter_context(watching(place, *routes))
            desk.eventually(lambda: desk.shares.get(second), "it has its share")
        took = came[-1] - ready[-1]
        assert took < 2, f"{took:.2f} s"


@contextmanager
def prometheus() -> Iterator[tuple[str, dict[str, Any]]]:
    """Answers every query with one number, or not at all; and remembers what it was asked."""
    told: dict[str, Any] = {"value": "0", "queries": [], "tokens": set(), "status": 200}

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(request.path).query)
        told["queries"].append(asked["query"][0])
        told["tokens"].add(request.headers["Authorization"])
        body = {"status": "success", "data": {"resultType": "scalar", "result": [time.time(), told["value"]]}}
        return told["status"], json.dumps(body).encode()

    with serving(answer) as port:
        yield f"http://127.0.0.1:{port}", told


class TestFigures:
    ANALYSIS = {"intervalSeconds": 1, "minSamples": 20, "failureLimit": 1}  # noqa: RUF012 - never changed

    def test_bad_figures_take_the_traffic_at_once(self, desk: Any, kubelet: Any, place: Any) -> None:
        """From the request that crosses the limit to weight 0 within one interval and a second."""
        with figures() as (port, served):
            kubelet.addresses |= {"agent:7": "127.0.0.7", "agent:8": "127.0.0.8"}
            analysis = {**self.ANALYSIS, "metrics": [{"name": "errorRate", "max": 0.05}]}
            desk.spec["rollout"] = {**ROLLOUT, "analysis": analysis}
            desk.spec["template"] = {"image": "agent:7", "port": port}
            first = desk.started("agent:7")
            served["127.0.0.8"] = (0.0, 0.0)
            desk.spec["template"] = {"image": "agent:8", "port": port}
            desk.apply("agent:8")
            desk.at_pause()
            came: list[float] = []
            with watching(place, "virtualservices", desk.name, shares_of, lambda: came.append(time.monotonic())):
                crossed = time.monotonic()
                served["127.0.0.8"] = (1000.0, 5000.0)
                desk.eventually(lambda: desk.shares == {first: 100}, "the canary has nothing")
            took = came[-1] - crossed
            assert took < self.ANALYSIS["intervalSeconds"] + 1, f"{took:.2f} s"

    def test_prometheus(self, desk: Any, place: Any, operator: Any) -> None:
        """Its number rolls a canary back, asked with the Secret's token; while it is away nothing moves either way."""
        place.secret("metrics", token="hush")
        with prometheus() as (address, told):
            query = 'sum(rate(bad{revision="{{canary}}",namespace="{{namespace}}"}[1m]))'
            analysis = {
                **self.ANALYSIS,
                "prometheus": {"address": address, "bearerTokenSecretRef": {"name": "metrics"}},
                "metrics": [{"name": "bad", "query": query, "max": 0.1}],
            }
            desk.spec["rollout"] = {**ROLLOUT, "analysis": analysis}
            first = desk.started()
            told["status"] = 502
            desk.apply("agent:2")
            second = desk.at_pause()
            desk.ask("resume", second)
            desk.eventually(lambda: len(told["queries"]) > 3, "it is asked again and again")
            assert desk.shares == {first: 80, second: 20}
            (outcome,) = desk.state["lastAnalysis"]
            assert "answered 502" in outcome["message"]
            assert set(told["queries"]) == {f'sum(rate(bad{{revision="{second}",namespace="{place.name}"}}[1m]))'}
            assert told["tokens"] == {"Bearer hush"}
            told["status"], told["value"] = 200, "0.5"
            desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 30)
            assert desk.shares == {first: 100}
            (outcome,) = desk.state["lastAnalysis"]
            assert (outcome["value"], outcome["threshold"], outcome["verdict"]) == (0.5, 0.1, "Fail")
        assert "hush" not in operator.log.read_text()


class TestModels:
    def test_a_channel(self, desk: Any, kubelet: Any, place: Any, audit: Any) -> None:
        """What it points at runs; another pointer is a rollout; no news is only a Job; no bucket is no change."""
        kubelet.channel_report = {"reason": "Resolved", "message": "", "version": "1", "digest": OLD}
        model = {"uri": MODEL["uri"], "channel": "stable", "channelPollSeconds": 10}
        desk.spec |= {"model": model, "rollout": {"strategy": "Rolling", "scaleDownDelaySeconds": 1}}
        first = desk.started()
        audit.rest(desk.name)
        before = _looks(place, desk.name)
        with audit(desk.name) as seen:
            desk.eventually(lambda: _looks(place, desk.name) - before, "it looks again", 40)
            time.sleep(3)
        assert {
            line.split()[3].rpartition("/")[2].partition("?")[0].rstrip("0123456789") for line in audit.writes(seen)
        } == {f"{desk.name}-channel-"}
        kubelet.channel_report = {"reason": "Resolved", "message": "", "version": "2", "digest": NEW}
        desk.eventually(
            lambda: desk.state["stableRevision"] != first and place.is_ready(desk.name), "version 2 runs", 60
        )
        status = place.get("supportagents", desk.name)["status"]["model"]
        assert (status["channelVersion"], status["version"], status["loadedPods"]) == ("2", "2", 4)
        kubelet.channel_report = {"reason": "StorageUnreachable", "message": "no route"}
        desk.eventually(lambda: "no route" in place.condition(desk.name, "ModelSynced")["message"], "it is said", 40)
        assert place.is_ready(desk.name)
        jobs = [one["metadata"]["name"] for one in place.list("jobs") if "-channel-" in one["metadata"]["name"]]
        assert len(jobs) <= 2

    def test_a_hot_model(self, desk: Any, kubelet: Any, place: Any) -> None:
        """The pointer changes once the Job has verified the model; pods say when they have it, or why not."""
        with loading() as (port, pods):
            kubelet.addresses |= {"agent:9": "127.0.0.9"}
            desk.spec["template"] = {"image": "agent:9", "port": port}
            desk.spec |= {"model": {**MODEL, "reload": "Hot"}, "rollout": {"strategy": "Rolling"}}
            first = desk.started("agent:9")
            before = {one["metadata"]["uid"] for one in place.list("pods")}
            desk.spec["model"] = {**MODEL, "version": "2", "digest": NEW, "reload": "Hot"}
            with kubelet.told(jobs_run=False):
                desk.apply("agent:9")
                desk.eventually(lambda: place.reason(desk.name, "ModelSynced") == "Downloading", "it is verified first")
                assert json.loads(place.get("configmaps", f"{desk.name}-model")["data"]["model.json"])["digest"] == OLD
            pods["refused"] = NEW
            desk.eventually(lambda: place.reason(desk.name, "ModelSynced") == "ReloadFailed", "pods refuse it", 30)
            assert json.loads(place.get("configmaps", f"{desk.name}-model")["data"]["model.json"])["digest"] == NEW
            assert "SelfTestFailed" in place.condition(desk.name, "ModelSynced")["message"]
            pods |= {"refused": "", "digest": NEW}
            desk.eventually(lambda: place.is_ready(desk.name), "pods have it", 40)
            status = place.get("supportagents", desk.name)["status"]["model"]
            assert (status["digest"], status["loadedPods"]) == (NEW, 4)
            assert desk.state["stableRevision"] == first
            agents = {one["metadata"]["uid"] for one in place.list("pods") if "agent:9" in str(one["spec"])}
            assert {uid for uid in before if uid in agents}
            asked = pods["asked"]
            time.sleep(4)
            assert pods["asked"] == asked


def _looks(place: Any, name: str) -> set[str]:
    """The Jobs that have looked at the agent's channel."""
    jobs = (one for one in place.list("jobs") if one["metadata"]["name"].startswith(f"{name}-channel-"))
    return {one["metadata"]["uid"] for one in jobs if one["status"].get("succeeded")}


@contextmanager
def loading() -> Iterator[tuple[int, dict[str, Any]]]:
    """Pods' figures about their model."""
    pods: dict[str, Any] = {"digest": OLD, "refused": "", "asked": 0}

    def answer(_: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        pods["asked"] += 1
        lines = ["# TYPE agent_model_info gauge", f'agent_model_info{{version="1",digest="{pods["digest"]}"}} 1.0']
        if pods["refused"]:
            what = f'version="2",digest="{pods["refused"]}",reason="SelfTestFailed"'
            lines += [
                "# TYPE agent_model_reload_failed_info gauge",
                f"agent_model_reload_failed_info{{{what}}} 1.0",
            ]
        return 200, "\n".join([*lines, ""]).encode()

    with serving(answer, "") as port:
        yield port, pods
