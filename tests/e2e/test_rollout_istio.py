"""Rollouts through a real Istio gateway: who gets which revision, and that nobody gets an error.

What customers got is what counts: revisions greet differently, so an answer tells who gave it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import runpy
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supportfleet.local import images
from supportfleet.local.progress import Progress

HERE = Path(__file__).parent
LOG = logging.getLogger("figures")
"""What was measured: shown with --log-cli-level=INFO."""
Load = runpy.run_path(str(HERE / "rollout_traffic.py"))["Load"]
FAULTY = runpy.run_path(str(HERE / "faulty_image.py"))
HOST = "customer-agent.example.com"
NAME = "customer-agent"
RATE = 40.0
IMAGE = "supportfleet/agent:dev"
TESTERS = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
STABLE, CANARY = "I am the first revision.", "I am the second revision."
ACTION = "supportfleet.dev/action"
DEVIATIONS = 3
SECONDS_TO_FIRST_TRAFFIC = 2.0

pytestmark = pytest.mark.timeout(900)


class Mesh:
    """A cluster with Istio, and how traffic gets in."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.name = cluster, cluster.info["name"]
        self.local("up", "--istio", "--provider", "embedded", "--yes")
        ingress = json.loads(self.local("status", "-o", "json"))["ingress"]
        self.endpoint: str = ingress["endpoint"]
        self.gateways = {"Istio": ingress["gateway"], "GatewayAPI": ingress["gatewayAPI"]}

    def local(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", self.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=self.cluster.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def mesh(operator: Any, unavailable: Callable[[str, str], Any]) -> Mesh:
    """The cluster under test, with Istio from now on."""
    if not operator.info:
        unavailable("Istio's ingress", "run this test on a cluster of 'supportfleet local up'")
    return Mesh(operator)


class Shop:
    """One agent behind the gateway."""

    def __init__(self, mesh: Mesh, namespace: str, provider: str) -> None:
        self.cluster, self.namespace, self.provider = mesh.cluster, namespace, provider
        self.host = f"{namespace}.{HOST}"
        self.load = Load(mesh.endpoint, self.host)
        self.traffic = {"provider": provider, "hosts": [self.host], "gateways": [mesh.gateways[provider]]}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return str(self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin, timeout=120).stdout)

    def apply(self, greeting: str, rollout: dict[str, Any], image: str = IMAGE, **traffic: Any) -> None:
        """What is in Git."""
        resources = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}}
        spec = {
            "replicas": 2,
            "template": {"image": image, "resources": resources},
            "config": {"greeting": greeting},
            "database": {"secretRef": {"name": "postgres-credentials"}},
            "traffic": {**self.traffic, **traffic},
            "rollout": {"progressDeadlineSeconds": 240, "scaleDownDelaySeconds": 5, **rollout},
        }
        metadata = {"name": NAME, "namespace": self.namespace}
        agent = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "metadata": metadata, "spec": spec}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(agent))

    def patch(self, **spec: Any) -> None:
        self.kubectl("patch", "supportagent", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))

    def ask(self, action: str) -> None:
        """Ask for something to be done about the canary."""
        words = {ACTION: action, f"{ACTION}-revision": self.state["canaryRevision"], f"{ACTION}-id": str(time.time())}
        self.kubectl("annotate", "--overwrite", "supportagent", NAME, *(f"{key}={word}" for key, word in words.items()))

    @property
    def agent(self) -> dict[str, Any]:
        return dict(self.cluster.get("-n", self.namespace, "supportagent", NAME))

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.agent.get("status", {}).get("rollout") or {})

    def is_ready(self) -> bool:
        agent = self.agent
        conditions = agent.get("status", {}).get("conditions", [])
        ready: dict[str, Any] = next((one for one in conditions if one["type"] == "Ready"), {})
        return bool(
            ready.get("status") == "True" and ready.get("observedGeneration") == agent["metadata"]["generation"]
        )

    def is_paused_at(self, weight: int) -> bool:
        state = self.state
        return bool(state.get("phase") == "Paused" and state.get("currentWeight") == weight)

    def answered(self, revision: str) -> int:
        """How many messages the pods of a revision have answered, by their own count."""
        return sum(self._answered(pod["metadata"]["name"]) for pod in self.pods(revision))

    def pods(self, revision: str) -> list[dict[str, Any]]:
        label = f"supportfleet.dev/revision={revision}"
        return list(self.cluster.get("-n", self.namespace, "pods", "-l", label)["items"])

    def _answered(self, pod: str) -> int:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy/metrics"
        lines = self.kubectl("get", "--raw", path).splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("agent_request_total{"))

    @contextmanager
    def watched(self, *what: str) -> Iterator[list[tuple[float, dict[str, Any]]]]:
        """Every version of objects from now on, and when this machine saw it."""
        seen: list[tuple[float, dict[str, Any]]] = []
        command = [self.cluster.kubectl_path, "-n", self.namespace, "get", *what, "--watch", "-o", "json"]
        with subprocess.Popen(command, env=self.cluster.env, stdout=subprocess.PIPE, text=True) as process:
            thread = threading.Thread(target=_read, args=(process, seen), daemon=True)
            thread.start()
            try:
                yield seen
            finally:
                process.terminate()
                thread.join(10)


def _read(process: subprocess.Popen[str], seen: list[tuple[float, dict[str, Any]]]) -> None:
    """Take in one indented object after the other; each ends at a brace in the first column."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip() == "}":
            seen.append((time.monotonic(), json.loads("".join(lines))))
            lines.clear()


def greeted(answers: list[Any]) -> Counter[str]:
    """How many answers each revision gave."""
    return Counter(one.reply if one.status == 200 else f"{one.status} {one.error}" for one in answers)


def weights(seen: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, int]]:
    """The canary's weights and when they were decided, each once in a row."""
    states = ((at, one.get("status", {}).get("rollout", {})) for at, one in seen)
    found = [(at, int(state.get("currentWeight", 0))) for at, state in states if state.get("canaryRevision")]
    return [(at, weight) for number, (at, weight) in enumerate(found) if number == 0 or weight != found[number - 1][1]]


def lost_all(seen: list[tuple[float, dict[str, Any]]], canary: str) -> float:
    """When the routes gave a revision nothing any more."""
    gave = [number for number, (_, route) in enumerate(seen) if _gives(route, canary)]
    return seen[gave[-1] + 1][0]


def _gives(route: dict[str, Any], revision: str) -> bool:
    listed = route["spec"]["http"][-1]["route"]
    return any(one["destination"]["host"].endswith(revision) and one.get("weight", 100) for one in listed)


@contextmanager
def opened(mesh: Mesh, namespace: str, provider: str) -> Iterator[Shop]:
    """A shop in a namespace of its own, with the database's Secret."""
    mesh.cluster.kubectl("create", "namespace", namespace)
    secret = mesh.cluster.get("-n", "supportfleet-local", "secret", "postgres-credentials")
    metadata = {"name": secret["metadata"]["name"], "namespace": namespace}
    copy = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]}
    mesh.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(copy))
    yield Shop(mesh, namespace, provider)
    mesh.cluster.kubectl("delete", "namespace", namespace, "--wait=false")


_NUMBERS = itertools.count()


@pytest.fixture
def shop(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """An agent of the test's own; the parameter says who routes."""
    provider = getattr(request, "param", "Istio")
    with opened(mesh, f"shop-{next(_NUMBERS)}", provider) as shop:
        yield shop


@pytest.fixture(scope="module", params=["Istio", "GatewayAPI"])
def canary(mesh: Mesh, request: pytest.FixtureRequest, soon: Callable[..., Any]) -> Iterator[Shop]:
    """The seed case at rest: ten in a hundred and beta testers go to the second revision."""
    rollout = {"strategy": "Canary", "match": TESTERS, "steps": [{"setWeight": 10}, {"pause": {}}]}
    with opened(mesh, f"seed-{request.param.lower()}", request.param) as shop:
        stickiness = {"cookie": {}, "ttlSeconds": 600}
        shop.apply(STABLE, rollout, stickiness=stickiness)
        soon(shop.is_ready, seconds=180, message="the first revision serves")
        shop.apply(CANARY, rollout, stickiness=stickiness)
        soon(lambda: shop.is_paused_at(10), seconds=180, message="the canary has its tenth")
        soon(lambda: greeted(shop.load.send(1, 10, user_agent="beta-tester")) == {CANARY: 1}, message="Envoy knows")
        yield shop


@pytest.fixture(scope="module")
def soon() -> Callable[..., Any]:
    """``until`` for fixtures of a module."""

    def wait(probe: Callable[[], Any], *, seconds: float = 60, message: str = "") -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := probe()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {message}"
            time.sleep(0.25)
        return answer

    return wait


class TestAtTenPercent:
    def test_the_split_is_exact(self, canary: Shop) -> None:
        """Of 2,000 requests the canary answers a tenth, within three standard deviations.

        Chance alone misses them once in 370 times, so what misses once is counted again.
        """
        count, share = 2000, 0.1
        allowed = DEVIATIONS * math.sqrt(count * share * (1 - share))
        said = greeted(canary.load.send(count, 80))
        if abs(said[CANARY] - count * share) > allowed:
            said = greeted(canary.load.send(count, 80))
        LOG.info("%s, %s requests: %s", canary.provider, count, said)
        assert said[STABLE] + said[CANARY] == count, said
        assert abs(said[CANARY] - count * share) <= allowed

    def test_beta_testers_always_get_it(self, canary: Shop) -> None:
        """The header leads to the canary every time."""
        answers = canary.load.send(200, 60, user_agent="Mozilla/5.0 (beta-tester)")
        assert greeted(answers) == {CANARY: 200}

    def test_customers_stay_with_their_revision(self, canary: Shop) -> None:
        """Who brings a revision's cookie back is answered by it, whatever the weights say."""
        first, second = canary.state["stableRevision"], canary.state["canaryRevision"]
        named = {one.cookie: one.reply for one in canary.load.send(200, 60)}
        assert named == {first: STABLE, second: CANARY}
        for revision, greeting in named.items():
            answers = canary.load.send(100, 60, cookie=f"theme=dark; supportfleet-revision={revision}")
            assert greeted(answers) == {greeting: 100}


@pytest.mark.parametrize("shop", ["Istio", "GatewayAPI"], indirect=True)
def test_a_promotion_fails_nobody(shop: Shop, until: Callable[..., Any]) -> None:
    """Through new pods, three weights, promotion and the old pods' end, every request is answered.

    The canary's first answer comes within two seconds of its readiness.
    """
    steps = [{"setWeight": 20}, {"pause": {"durationSeconds": 4}}, {"setWeight": 50}, {"pause": {"durationSeconds": 4}}]
    rollout = {"strategy": "Canary", "steps": steps}
    shop.apply(STABLE, rollout, stickiness={"cookie": {}, "ttlSeconds": 10})
    until(shop.is_ready, seconds=180, message="the first revision serves")
    first = shop.state["stableRevision"]
    until(lambda: greeted(shop.load.send(1, 10)) == {STABLE: 1}, message="Envoy knows the first revision")
    shop.load.answers.clear()
    with shop.watched("supportagent", NAME) as seen, shop.watched("pods") as pods, shop.load.steady(RATE):
        patched = time.monotonic()
        shop.patch(config={"greeting": CANARY})
        until(lambda: shop.state.get("stableRevision") not in (None, first), seconds=180, message="promotion")
        until(lambda: not shop.state.get("retiring"), seconds=60, message="the old pods may go")
        time.sleep(12)  # they do, with requests under way
    answers = shop.load.answers
    assert [weight for _, weight in weights(seen)] == [0, 20, 50, 100]
    assert greeted(answers).keys() == {STABLE, CANARY}
    canary_ready = first_ready(pods, shop.state["stableRevision"])
    arrived = min(one.done for one in answers if one.reply == CANARY)
    ready, first_answer = canary_ready - patched, arrived - canary_ready
    LOG.info("%s: patch to ready %.2f s, ready to first answer %.2f s", shop.provider, ready, first_answer)
    LOG.info("%s requests, %s failed", len(answers), len(shop.load.failed))
    assert first_answer < SECONDS_TO_FIRST_TRAFFIC
    assert not shop.load.failed


def first_ready(pods: list[tuple[float, dict[str, Any]]], revision: str) -> float:
    """When the first pod of a revision was seen to be ready."""
    for at, pod in pods:
        conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", [])}
        if pod["metadata"]["labels"].get("supportfleet.dev/revision") == revision and conditions.get("Ready") == "True":
            return at
    raise AssertionError(f"no pod of {revision} got ready")


@pytest.fixture(scope="module")
def faulty(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image whose agent fails every second message, on every node."""
    with Progress() as progress:
        agent = asyncio.run(images.archive_of(IMAGE, progress=progress))
    archive = FAULTY["build"](agent, tmp_path_factory.mktemp("faulty"))
    mesh.local("load-image", str(archive))
    archive.unlink()
    return str(FAULTY["REFERENCE"])


def test_a_bad_revision_is_taken_back(shop: Shop, faulty: str, until: Callable[..., Any]) -> None:
    """An agent that errs for half of its messages gets no traffic any more, soon after its figures say so.

    That is within one interval and a second of the limit being crossed. It stays so, and stable fails nobody.
    """
    interval, samples, limit = 5, 20, 0.05
    analysis = {"intervalSeconds": interval, "minSamples": samples, "metrics": [{"name": "errorRate", "max": limit}]}
    rollout = {"strategy": "Canary", "steps": [{"setWeight": 30}, {"pause": {}}], "analysis": analysis}
    shop.apply(STABLE, rollout)
    until(shop.is_ready, seconds=180, message="the first revision serves")
    until(lambda: greeted(shop.load.send(1, 10)) == {STABLE: 1}, message="Envoy knows the first revision")
    first = shop.state["stableRevision"]
    shop.load.answers.clear()
    with (
        shop.watched("virtualservice", NAME) as routes,
        shop.watched("supportagent", NAME) as seen,
        shop.load.steady(RATE),
    ):
        shop.apply(CANARY, rollout, image=faulty)
        until(lambda: shop.state.get("failedRevision"), seconds=240, message="it is rolled back")
        failed = shop.state["failedRevision"]
        time.sleep(2)
        after = time.monotonic()
        time.sleep(10)
        shop.apply(CANARY, rollout, image=faulty)  # as a GitOps tool does
        time.sleep(5)
    crossed = crossing(shop.load.answers, samples, limit)
    gone = lost_all(routes, failed)
    last = max(one.done for one in shop.load.answers if one.reply == CANARY or one.status == 500)
    LOG.info("weight 0 %.2f s after the limit was crossed (interval %s s)", gone - crossed, interval)
    LOG.info("last answer of the bad revision %.2f s after; %s", last - crossed, greeted(shop.load.answers))
    assert gone - crossed <= interval + 1
    assert greeted(shop.load.since(after)) == {STABLE: len(shop.load.since(after))}
    assert {one.status for one in shop.load.failed} == {500}
    assert shop.state["lastAnalysis"][0]["metric"] == "errorRate"
    assert shop.state["stableRevision"] == first
    assert [weight for _, weight in weights(seen)] == [0, 30]


def crossing(answers: list[Any], samples: int, limit: float) -> float:
    """When the canary had answered enough messages, and too many of them with errors."""
    own = sorted((one for one in answers if one.reply == CANARY or one.status == 500), key=lambda one: one.done)
    for number in range(samples, len(own) + 1):
        errors = sum(1 for one in own[:number] if one.status == 500)
        if errors / number > limit:
            return float(own[number - 1].done)
    raise AssertionError(f"the canary answered {len(own)} messages")


@pytest.mark.parametrize("shop", ["Istio", "GatewayAPI"], indirect=True)
def test_copies_of_requests_change_nothing_for_customers(shop: Shop, until: Callable[..., Any]) -> None:
    """A canary that gets a copy of every request answers them all, and every customer is answered by stable."""
    count = 200
    rollout = {"strategy": "Canary", "steps": [{"setMirror": 100}, {"pause": {}}, {"setWeight": 50}]}
    shop.apply(STABLE, rollout)
    until(shop.is_ready, seconds=180, message="the first revision serves")
    shop.apply(CANARY, rollout)
    until(lambda: shop.state.get("phase") == "Paused", seconds=180, message="copies are made")
    canary = shop.state["canaryRevision"]
    assert shop.state["currentMirror"] == 100
    until(lambda: shop.load.send(1, 10) and shop.answered(canary) > 0, message="Envoy makes copies")

    def at_rest() -> int:
        """What the canary has answered, once it answers no more."""
        count = shop.answered(canary)
        time.sleep(3)
        return count if shop.answered(canary) == count else 0

    before = until(at_rest, message="the copies of these are answered")
    assert greeted(shop.load.send(count, 40)) == {STABLE: count}
    until(lambda: shop.answered(canary) >= before + count, message="the canary has answered the copies")
    assert shop.answered(canary) == before + count
    assert shop.state["currentWeight"] == 0


def test_a_rollback_fails_nobody(shop: Shop, until: Callable[..., Any]) -> None:
    """A canary with half of the traffic that a person aborts hands it back, and every request is answered."""
    rollout = {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}]}
    shop.apply(STABLE, rollout)
    until(shop.is_ready, seconds=180, message="the first revision serves")
    until(lambda: greeted(shop.load.send(1, 10)) == {STABLE: 1}, message="Envoy knows the first revision")
    shop.load.answers.clear()
    with shop.watched("supportagent", NAME) as seen, shop.load.steady(RATE):
        shop.apply(CANARY, rollout)
        until(lambda: shop.is_paused_at(50), seconds=180, message="the canary has its half")
        time.sleep(3)
        shop.ask("abort")
        until(lambda: shop.state["phase"] == "RolledBack", seconds=60, message="it is rolled back")
        time.sleep(12)  # its pods go, with requests under way
    asked = next(at for at, one in seen if ACTION in one["metadata"].get("annotations", {}))
    last = max(one.sent for one in shop.load.answers if one.reply == CANARY)
    LOG.info("abort to the last request that the canary got: %.2f s", last - asked)
    assert greeted(shop.load.answers).keys() == {STABLE, CANARY}
    assert last - asked < SECONDS_TO_FIRST_TRAFFIC


@pytest.mark.parametrize("shop", ["Istio", "GatewayAPI"], indirect=True)
def test_conversations_outlive_a_promotion(shop: Shop, mesh: Mesh, until: Callable[..., Any]) -> None:
    """Who brings the old revision's cookie is answered by it until the ttl is over, and by the new one from then on.

    Everybody else gets the new one from the promotion on. No request fails, and the old pods go in the end.
    """
    ttl, rollout = 30, {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}]}
    stickiness = {"cookie": {}, "ttlSeconds": ttl}
    shop.apply(STABLE, rollout, stickiness=stickiness)
    until(shop.is_ready, seconds=180, message="the first revision serves")
    until(lambda: greeted(shop.load.send(1, 10)) == {STABLE: 1}, message="Envoy knows the first revision")
    first = shop.state["stableRevision"]
    shop.load.answers.clear()
    loyal = Load(mesh.endpoint, shop.host, {"Cookie": f"supportfleet-revision={first}"})
    with loyal.steady(RATE / 4), shop.load.steady(RATE / 4), shop.watched("supportagent", NAME) as seen:
        shop.apply(CANARY, rollout, stickiness=stickiness)
        until(lambda: shop.is_paused_at(50), seconds=180, message="the canary has its half")
        shop.ask("promote")
        until(lambda: shop.state["stableRevision"] != first, seconds=60, message="promotion")
        until(lambda: not shop.state.get("retiring"), seconds=ttl + 30, message="the old pods may go")
        ended = time.monotonic() + SECONDS_TO_FIRST_TRAFFIC
        until(lambda: not shop.pods(first), seconds=60, message="the old pods are gone")
        time.sleep(3)
    promoted = next(at for at, one in seen if one["status"]["rollout"]["stableRevision"] != first)
    kept = [one for one in loyal.answers if one.sent < promoted + ttl - 1]
    last = max(one.sent for one in loyal.answers if one.reply == STABLE)
    LOG.info("%s: the old revision answered for %.1f s after (ttl %s s)", shop.provider, last - promoted, ttl)
    LOG.info("requests, with cookie %s, without %s", len(loyal.answers), len(shop.load.answers))
    assert not loyal.failed
    assert not shop.load.failed
    assert greeted(kept) == {STABLE: len(kept)}
    assert greeted(loyal.since(ended)).keys() == {CANARY}
    assert greeted(shop.load.since(promoted + SECONDS_TO_FIRST_TRAFFIC)).keys() == {CANARY}
    assert not {one.cookie for one in kept if one.sent > promoted + SECONDS_TO_FIRST_TRAFFIC} - {""}, "cookies last on"


@pytest.mark.parametrize("shop", ["Istio", "GatewayAPI"], indirect=True)
def test_only_those_who_match_try_the_new_revision(shop: Shop, until: Callable[..., Any]) -> None:
    """In an A/B test those who match get the new revision and nobody else does, until all do; no request fails.

    But for who brings the header that it named itself by: programs keep no cookies.
    """
    rollout = {"strategy": "ABTest", "match": TESTERS, "steps": [{"pause": {}}]}
    stickiness = {"header": {}, "ttlSeconds": 10}
    shop.apply(STABLE, rollout, stickiness=stickiness)
    until(shop.is_ready, seconds=180, message="the first revision serves")
    until(lambda: greeted(shop.load.send(1, 10)) == {STABLE: 1}, message="Envoy knows the first revision")
    shop.apply(CANARY, rollout, stickiness=stickiness)
    until(lambda: shop.state.get("phase") == "Paused", seconds=180, message="the new revision waits at its step")
    until(lambda: greeted(shop.load.send(1, 10, user_agent="beta-tester")) == {CANARY: 1}, message="Envoy knows both")
    assert greeted(shop.load.send(100, RATE, user_agent="beta-tester")) == {CANARY: 100}
    assert greeted(shop.load.send(100, RATE)) == {STABLE: 100}
    first, second = shop.state["stableRevision"], shop.state["canaryRevision"]
    named = {one.cookie: one.reply for one in shop.load.send(10, RATE, user_agent="beta-tester")}
    assert named == {second: CANARY}
    assert greeted(shop.load.send(100, RATE, x_supportfleet_revision=second)) == {CANARY: 100}
    assert greeted(shop.load.send(100, RATE, x_supportfleet_revision=first)) == {STABLE: 100}
    shop.load.answers.clear()
    with shop.load.steady(RATE / 4):
        shop.ask("resume")
        until(lambda: shop.state["stableRevision"] == second, seconds=60, message="promotion")
        time.sleep(SECONDS_TO_FIRST_TRAFFIC)
        after = time.monotonic()
        time.sleep(10)  # the old pods go, with requests under way
    assert not shop.load.failed
    assert greeted(shop.load.since(after)).keys() == {CANARY}
