"""One agent in a rollout on a real API server, as those see it who roll it out; tests load this with runpy.

Routes are a VirtualService whose CustomResourceDefinition stands for Istio's: what it says is what is checked.
"""

from __future__ import annotations

import http.client
import json
import runpy
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

serving = runpy.run_path(str(Path(__file__).parent.parent / "serving.py"))["serving"]
ALONE = ("--no-leader-election",)
DATABASE = {"secretRef": {"name": "postgres-credentials"}}
STEPS = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {"durationSeconds": 1}}]
ROLLOUT = {"strategy": "Canary", "steps": STEPS, "scaleDownDelaySeconds": 1, "progressDeadlineSeconds": 60}
ISTIO = {"provider": "Istio", "hosts": ["desk.example.com"], "gateways": ["istio-system/local"]}
NAME = "virtualservices.networking.istio.io"
WATCHED = 300
"""Seconds that a watch may be silent."""
DELIVERED = 30
"""Seconds until a watch has told of what was written."""
REVISION = "supportfleet.dev/revision"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


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
        self.port: int | None = None
        """Where its pods serve; the usual port where nothing is said."""

    def manifest(self, image: str) -> dict[str, Any]:
        """What is in Git for this image."""
        template = {"image": image} | ({"port": self.port} if self.port else {})
        return manifest(self.name, **{"template": template, **self.spec})

    def apply(self, image: str) -> None:
        self.place.apply(self.manifest(image))

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

    def ready(self, revision: str) -> int:
        """A revision's pods that are ready by their own word; its Deployment says so a moment later."""
        pods = [one for one in self.place.list("pods") if one["metadata"]["labels"].get(REVISION) == revision]
        conditions = (condition for pod in pods for condition in pod["status"].get("conditions", ()))
        return sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def objects(self, plural: str, revision: str) -> dict[str, str]:
        """A revision's objects of a kind: who each is, by name."""
        listed = (one["metadata"] for one in self.place.list(plural))
        return {one["name"]: one["uid"] for one in listed if one["labels"].get(REVISION) == revision}

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


def walk(seen: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a rollout went through: phase, step and weight, each once in a row."""
    states = [(one["phase"], one.get("currentStep"), one.get("currentWeight")) for one in seen]
    return [state for number, state in enumerate(states) if number == 0 or state != states[number - 1]]


class Served(dict[str, tuple[float, float]]):
    """Counters by address: successes and errors; while there is a rate they grow with every look."""

    rate = (0.0, 0.0)
    healed = False
    """Whether what errs, whose address ends in .8, does so no more."""


@contextmanager
def figures() -> Iterator[tuple[int, Served]]:
    """Serves what pods serve at /metrics, for addresses of this machine."""
    served = Served()

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        address = request.connection.getsockname()[0]
        good, bad = served.get(address, (1000.0, 0.0))
        good, bad = (
            good + served.rate[0] + 5,
            bad + (served.rate[1] + 5 if address.endswith(".8") and not served.healed else 0),
        )
        if served.rate != (0.0, 0.0):
            served[address] = (good, bad)
        text = (
            "# TYPE agent_request_total counter\n"
            f'agent_request_total{{status="200",intent="refund"}} {good}\n'
            f'agent_request_total{{status="500",intent="none"}} {bad}\n'
        )
        return 200, text.encode()

    with serving(answer, "") as port:
        yield port, served


@contextmanager
def watching(
    place: Any,
    plural: str,
    name: str,
    pick: Callable[[dict[str, Any]], Any] = lambda found: found,
    told: Callable[[], None] = lambda: None,
) -> Iterator[list[Any]]:
    """What is picked of every version of an object from now on, in order, each once in a row.

    ``told`` is called for each as soon as this machine knows of it. When the block ends all is seen that was written.
    """
    seen: list[Any] = []
    newest = [0]
    version = place.api.request("GET", place.path(plural))["metadata"]["resourceVersion"]
    server = urllib.parse.urlsplit(place.api.server).netloc
    path = f"{place.path(plural)}?watch=true&resourceVersion={version}&fieldSelector=metadata.name={name}"
    with closing(http.client.HTTPSConnection(server, context=place.api.tls, timeout=WATCHED)) as connection:
        connection.request("GET", path)
        stream = connection.getresponse()
        assert stream.status == 200, stream.read()

        def read() -> None:
            try:
                for line in stream:
                    there = json.loads(line)["object"]
                    found = pick(there)
                    if found is not None and (not seen or seen[-1] != found):
                        seen.append(found)
                        told()
                    newest[0] = _version(there)
            except (OSError, ValueError, AttributeError, http.client.HTTPException):
                return  # closed

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield seen
            written = place.get(plural, name)
            deadline = time.monotonic() + DELIVERED
            while written and int(version) < _version(written) > newest[0]:
                assert time.monotonic() < deadline, f"the watch of {plural} {name} is behind"
                time.sleep(0.05)
        finally:
            connection.sock.shutdown(socket.SHUT_RDWR)  # closing alone would wait for the next event
            thread.join(5)


def _version(found: dict[str, Any]) -> int:
    return int(found["metadata"]["resourceVersion"])


def history(place: Any, name: str) -> Any:
    """Every state of the rollout that was ever written, in order."""
    return watching(place, "supportagents", name, lambda found: found.get("status", {}).get("rollout"))


def shares_of(route: dict[str, Any]) -> dict[str, int]:
    """What a VirtualService says of ordinary requests: percent by revision, none that get nothing."""
    name = route["metadata"]["name"]
    listed = route["spec"]["http"][-1]["route"]
    shares = {one["destination"]["host"].removeprefix(f"{name}-"): one.get("weight", 100) for one in listed}
    return {revision: weight for revision, weight in shares.items() if weight}


def definition(group: str, plural: str, kind: str) -> dict[str, Any]:
    """A kind whose objects may hold anything, as far as the API server and what reads them are concerned."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def established(cluster: Any, kinds: Mapping[str, str]) -> None:
    """Wait until the API server serves definitions; gives each by its name, with its kind."""
    for name, kind in kinds.items():
        # A definition so new that it has no conditions at all is an error for the second one alone.
        for what in (f"jsonpath={{.status.acceptedNames.kind}}={kind}", "condition=Established"):
            cluster.kubectl("wait", f"--for={what}", f"crd/{name}", "--timeout=30s")


@contextmanager
def istio_kind(place: Any) -> Iterator[None]:
    """Istio's kind, as far as the API server is concerned; gone afterwards, and so is that of a run that was killed."""
    _without_kind(place)
    place.api.request("POST", CRDS, definition("networking.istio.io", "virtualservices", "VirtualService"))
    established(place, {NAME: "VirtualService"})
    yield
    _without_kind(place)


def _without_kind(place: Any) -> None:
    if any(one["metadata"]["name"] == NAME for one in place.api.request("GET", CRDS)["items"]):
        remove_definitions(place, {NAME})


def remove_definitions(place: Any, names: Collection[str]) -> None:
    """Remove definitions that are there, and wait until they are gone with all their objects."""
    for name in names:
        place.api.request("DELETE", f"{CRDS}/{name}")
    deadline = time.monotonic() + 60
    while left := {one["metadata"]["name"] for one in place.api.request("GET", CRDS)["items"]}.intersection(names):
        assert time.monotonic() < deadline, f"{left} do not go"
        time.sleep(0.2)


def weights(seen: list[dict[str, Any]]) -> list[int]:
    """The canary's weights in order, each once."""
    found: list[int] = []
    for state in seen:
        weight = state.get("currentWeight", 0)
        if state.get("canaryRevision") and (not found or found[-1] != weight):
            found.append(weight)
    return found
