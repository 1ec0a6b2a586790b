"""How long from a canary's readiness to its first customer, and from an abort to its last; needs Istio.

Prepare the demo's cluster with `make demo` and `supportfleet local up --istio`. Baseline, in the same run and
interleaved: the same routes to the same pods, written by hand as a VirtualService for another host, so that the
difference is what the operator adds to what the API server, istiod and Envoy need anyway. What is timed is written
through `kubectl proxy`, since starting kubectl takes longer than all of that. Figures vary from machine to machine;
differences less.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from supportfleet.demo import cluster_info
from supportfleet.kubectl import Kubectl

NAMESPACE: Final = "benchmark-rollout"
NAME: Final = "bench"
HOST, BY_HAND = "bench.example.com", "by-hand.example.com"
STABLE: Final = "first"
READY: Final = 180
PAUSE: Final = 0.005
"""Seconds between two requests: what is measured is exact to about this, and the time of an answer."""


class Gateway:
    """The ingress, and one connection to it."""

    def __init__(self, endpoint: str) -> None:
        self.address = urlsplit(endpoint).netloc

    def ask(self, host: str) -> str:
        """Which revision greets a new customer; empty where nobody does."""
        body = json.dumps({"customer_id": f"customer-{time.time_ns()}", "text": "Hello"})
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("POST", "/v1/messages", body, {"Host": host, "Content-Type": "application/json"})
            answer = connection.getresponse()
            said = json.loads(answer.read() or b"{}") if answer.status == http.HTTPStatus.OK else {}
            return str(said.get("reply", ""))
        except (OSError, ValueError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def until(self, host: str, greeting: str) -> float:
        """When an answer by this revision was there."""
        deadline = time.monotonic() + READY
        while self.ask(host) != greeting:
            if time.monotonic() > deadline:
                sys.exit(f"{host} is not answered by {greeting!r} within {READY} s")
            time.sleep(PAUSE)
        return time.monotonic()

    def last(self, host: str, greeting: str, quiet: float = 2.0) -> float:
        """When the last request was sent that this revision answered: none followed for some seconds."""
        last = time.monotonic()
        while time.monotonic() - last < quiet:
            sent = time.monotonic()
            if self.ask(host) == greeting:
                last = sent
            time.sleep(PAUSE)
        return last


class Agent:
    """The agent that is rolled out, again and again."""

    def __init__(self, kubectl: Kubectl, api: str, gateway: str) -> None:
        self.kubectl, self.api, self.gateway = kubectl, api, gateway

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the benchmark's namespace."""
        return self.kubectl.run("-n", NAMESPACE, *arguments, stdin=stdin, timeout=READY + 10)

    def patch(self, group: str, name: str, kind: str, body: dict[str, Any]) -> None:
        """Write an object of the benchmark's namespace, with one kind of patch."""
        url = f"{self.api}/apis/{group}/namespaces/{NAMESPACE}/{name}?fieldManager=benchmark"
        headers = {"Content-Type": f"application/{kind}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="PATCH")  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            response.read()

    def apply(self, greeting: str) -> None:
        """Ask for a revision that greets like this."""
        spec = {
            "replicas": 1,
            "template": {
                "image": "supportfleet/agent:dev",
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
            },
            "config": {"greeting": greeting},
            "database": {"secretRef": {"name": "postgres-credentials"}},
            "traffic": {"provider": "Istio", "hosts": [HOST], "gateways": [self.gateway]},
            "rollout": {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}], "scaleDownDelaySeconds": 5},
        }
        body = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "metadata": {"name": NAME}}
        self.run("apply", "--server-side", "-f", "-", stdin=json.dumps({**body, "spec": spec}))

    def state(self) -> dict[str, Any]:
        """How far the rollout is."""
        return dict(self.kubectl.get("-n", NAMESPACE, "supportagent", NAME).get("status", {}).get("rollout") or {})

    def until(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """Wait for a state of the rollout."""
        deadline = time.monotonic() + READY
        while not condition(state := self.state()):
            if time.monotonic() > deadline:
                sys.exit(f"not within {READY} s: {what}; {state}")
            time.sleep(0.2)
        return state

    def revisions(self) -> frozenset[str]:
        """Those that have pods, also such as are about to be gone."""
        columns = r"jsonpath={.items[*].metadata.labels.supportfleet\.dev/revision}"
        return frozenset(self.run("get", "pods", "-o", columns).split())

    def abort(self, revision: str) -> None:
        """Have the canary rolled back."""
        prefix = "supportfleet.dev/action"
        words = {prefix: "abort", f"{prefix}-revision": revision, f"{prefix}-id": str(time.time_ns())}
        body = {"metadata": {"annotations": words}}
        self.patch("supportfleet.dev/v1alpha1", f"supportagents/{NAME}", "merge-patch+json", body)

    def route_by_hand(self, weights: dict[str, int]) -> None:
        """Write the routes of a step as somebody would without an operator."""
        route = [
            {"destination": {"host": f"{NAME}-{revision}", "port": {"number": 80}}, "weight": weight}
            for revision, weight in weights.items()
        ]
        body = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "by-hand"},
            "spec": {"hosts": [BY_HAND], "gateways": [self.gateway], "http": [{"route": route}]},
        }
        self.patch("networking.istio.io/v1", "virtualservices/by-hand", "apply-patch+yaml", body)

    @contextmanager
    def first_ready(self, known: frozenset[str]) -> Iterator[Callable[[], float]]:
        """Notice when a pod of a revision that is not known gets ready."""
        columns = r'{.metadata.labels.supportfleet\.dev/revision} {.status.conditions[?(@.type=="Ready")].status}{"\n"}'
        command = [self.kubectl.program(), "-n", NAMESPACE, "get", "pods", "--watch", "-o", f"jsonpath={columns}"]
        found: list[float] = []
        noticed = threading.Event()
        with subprocess.Popen(command, env=self.kubectl.env(), stdout=subprocess.PIPE, text=True) as process:

            def read() -> None:
                for line in process.stdout or ():
                    revision, _, ready = line.strip().partition(" ")
                    if revision not in known and ready == "True" and not found:
                        found.append(time.monotonic())
                        noticed.set()

            thread = threading.Thread(target=read, daemon=True)
            thread.start()

            def when() -> float:
                if not noticed.wait(READY):
                    sys.exit(f"no new pod is ready within {READY} s")
                return found[0]

            try:
                yield when
            finally:
                process.terminate()
                thread.join(10)


def one_round(agent: Agent, gateway: Gateway, number: int, stable: str) -> tuple[float, float, float, float]:
    """To the first customer and to the last, by the operator and by hand."""
    greeting = f"round {number}"
    with agent.first_ready(agent.revisions()) as ready:
        agent.apply(greeting)
        first = gateway.until(HOST, greeting)
        to_first = first - ready()
    canary = agent.until(lambda state: state.get("phase") == "Paused", "the canary waits")["canaryRevision"]

    agent.route_by_hand({stable: 100, canary: 0})
    gateway.until(BY_HAND, STABLE)
    started = time.monotonic()
    agent.route_by_hand({stable: 50, canary: 50})
    by_hand_first = gateway.until(BY_HAND, greeting) - started
    started = time.monotonic()
    agent.route_by_hand({stable: 100, canary: 0})
    by_hand_last = gateway.last(BY_HAND, greeting) - started

    started = time.monotonic()
    agent.abort(canary)
    to_last = gateway.last(HOST, greeting) - started
    agent.until(lambda state: state.get("phase") == "RolledBack", "the canary is gone")
    print(
        f"ready to first customer {to_first:.2f} s (by hand {by_hand_first:.2f} s), "
        f"abort to last {to_last:.2f} s (by hand {by_hand_last:.2f} s)"
    )
    return to_first, by_hand_first, to_last, by_hand_last


def run(agent: Agent, gateway: Gateway, count: int) -> list[tuple[float, float, float, float]]:
    """Bring the agent up, and roll it out so many times."""
    agent.apply(STABLE)
    stable = agent.until(lambda state: state.get("stableRevision"), "the first revision serves")["stableRevision"]
    gateway.until(HOST, STABLE)
    return [one_round(agent, gateway, number, stable) for number in range(1, count + 1)]


def prepare(kubectl: Kubectl) -> None:
    """The namespace, with the database's Secret."""
    kubectl.run("create", "namespace", NAMESPACE)
    data = kubectl.get("-n", "supportfleet-local", "secret", "postgres-credentials")["data"]
    copy = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "postgres-credentials", "namespace": NAMESPACE}}
    kubectl.run("apply", "-f", "-", stdin=json.dumps({**copy, "data": data}))


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", default="supportfleet")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    info = cluster_info(args.cluster)
    if "ingress" not in info:
        sys.exit(f"the cluster has no Istio: supportfleet local up --name {args.cluster} --istio")
    kubectl = Kubectl(Path(info["kubeconfig"]), Path(info["kubectl"]))
    gateway = Gateway(info["ingress"]["endpoint"])
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    print(f"machine: {os.cpu_count()} cores, {memory:.0f} GiB")
    prepare(kubectl)
    try:
        with kubectl.proxy() as api:
            rounds = run(Agent(kubectl, api, info["ingress"]["gateway"]), gateway, args.rounds)
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, timeout=READY)
    first, by_hand_first, last, by_hand_last = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"median: ready to first customer {first:.2f} s, {first - by_hand_first:+.2f} s against routes written by hand"
    )
    print(f"        abort to last customer {last:.2f} s, {last - by_hand_last:+.2f} s against routes written by hand")


if __name__ == "__main__":
    main()
