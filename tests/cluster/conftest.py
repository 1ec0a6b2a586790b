"""The operator as a process against a real API server, with nobody but the test to run pods.

The operator runs as its own ServiceAccount from manifests/, so every test also shows that its rights are enough, and
for one namespace, so that test files do not meet: the tests of a file share an operator and a namespace. ``Kubelet``
plays the node: it says of pods what a test wants said.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import runpy
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet.local import binaries
from supportfleet.local.binaries import BuildError
from supportfleet.local.progress import Progress

ROOT = Path(__file__).parent.parent.parent
SYSTEM = "supportfleet-system"
OPERATOR = f"system:serviceaccount:{SYSTEM}:supportfleet-operator"
JOB_COMPONENTS = ("model-sync", "model-channel", "checklist")
CHECKLIST_CODES = {"ChecklistPassed": 0, "ChecklistFailed": 1, "ChecklistIncomplete": 2}
NODE = "played-by-the-test"
PUBLISHED = {
    "istio.io/api": Path("kubernetes") / "customresourcedefinitions.gen.yaml",
    "sigs.k8s.io/gateway-api": Path("config") / "crd" / "standard" / "gateway.networking.k8s.io_httproutes.yaml",
}
ROUTES = ("VirtualService", "DestinationRule", "HTTPRoute")
meanwhile = runpy.run_path(str(Path(__file__).parent.parent / "meanwhile.py"))["meanwhile"]
free_port = runpy.run_path(str(Path(__file__).parent.parent / "ports.py"))["free_port"]
DESK = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
PREFIXES = {
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "supportagents": "/apis/supportfleet.dev/v1alpha1",
    "leases": "/apis/coordination.k8s.io/v1",
    "events": "/apis/events.k8s.io/v1",
    "replicasets": "/apis/apps/v1",
    "controllerrevisions": "/apis/apps/v1",
    "virtualservices": "/apis/networking.istio.io/v1",
    "destinationrules": "/apis/networking.istio.io/v1",
    "httproutes": "/apis/gateway.networking.k8s.io/v1",
}


class Api:
    """Requests of the cluster's administrator, without a kubectl for each."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"]
        with ExitStack() as stack:
            files = {}
            for key, place in (("certificate-authority", cluster), ("client-certificate", user), ("client-key", user)):
                if f"{key}-data" in place:
                    file = stack.enter_context(tempfile.NamedTemporaryFile())
                    file.write(base64.b64decode(place[f"{key}-data"]))
                    file.flush()
                    files[key] = file.name
                elif key in place:
                    files[key] = str(kubeconfig.parent / place[key])
            self.tls = ssl.create_default_context(cafile=files["certificate-authority"])
            if "client-certificate" in files:
                self.tls.load_cert_chain(files["client-certificate"], files["client-key"])

    def request(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """One request; a failure carries the API server's message."""
        request = urllib.request.Request(  # noqa: S310 - https, to the cluster under test
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content},
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=self.tls) as response:  # noqa: S310 - as above
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            message = json.loads(error.read())["message"]
            raise ApiRefusal(error.code, message) from None


class ApiRefusal(Exception):  # noqa: N818 - an answer
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass
class Namespace:
    """One namespace, as its users see it."""

    api: Api
    name: str
    kubectl: Callable[..., subprocess.CompletedProcess[str]]

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        parts = [PREFIXES.get(plural, "/api/v1"), "namespaces", self.name, plural, name, subresource]
        return "/".join(part for part in parts if part)

    def get(self, plural: str, name: str) -> Any:
        """The object, or None."""
        try:
            return self.api.request("GET", self.path(plural, name))
        except ApiRefusal as refusal:
            if refusal.code == 404:
                return None
            raise

    def list(self, plural: str) -> list[Any]:
        return list(self.api.request("GET", self.path(plural))["items"])

    def apply(self, agent: dict[str, Any]) -> Any:
        """Create or change an agent, as ``kubectl apply --server-side`` does."""
        agent = {**agent, "metadata": {**agent["metadata"], "namespace": self.name}}
        path = self.path("supportagents", agent["metadata"]["name"]) + "?fieldManager=tester&force=true"
        return self.api.request("PATCH", path, agent, "application/apply-patch+yaml")

    def patch(self, plural: str, name: str, body: Any, subresource: str = "", manager: str = "tester") -> Any:
        path = self.path(plural, name, subresource) + f"?fieldManager={manager}"
        return self.api.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, plural: str, name: str) -> None:
        self.api.request("DELETE", self.path(plural, name))

    def secret(self, name: str, **data: str) -> None:
        self.api.request("POST", self.path("secrets"), {"metadata": {"name": name}, "stringData": data})

    def condition(self, agent: str, kind: str) -> dict[str, Any]:
        """A condition of an agent; empty without it."""
        found = self.get("supportagents", agent) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def reason(self, agent: str, kind: str = "Ready") -> str:
        return str(self.condition(agent, kind).get("reason", ""))

    def stable(self, agent: str) -> str:
        """The revision that serves; empty before there is one."""
        return str((self.get("supportagents", agent).get("status", {}).get("rollout") or {}).get("stableRevision", ""))

    def named(self, agent: str) -> str:
        """How the children of the revision that serves are called."""
        return f"{agent}-{self.stable(agent)}"

    def of(self, plural: str, agent: str) -> Any:
        """The child of the revision that serves, or None."""
        return self.get(plural, self.named(agent))

    def is_ready(self, agent: str) -> bool:
        """Ready for the generation there is now."""
        found = self.get("supportagents", agent)
        ready = self.condition(agent, "Ready")
        return ready.get("status") == "True" and ready["observedGeneration"] == found["metadata"]["generation"]


@dataclass
class Kubelet:
    """Runs pods by word of mouth: what a test does not say otherwise becomes ready or succeeds."""

    namespace: Namespace
    agents_run: bool = True
    """Whether pods of agents become ready; otherwise they stay as they are."""
    jobs_run: bool = True
    """Whether pods of Jobs end; otherwise they stay as they are."""
    job_report: dict[str, str] | None = None
    """What the model sync reports when it fails; None when it succeeds."""
    job_exit_code: int = 2
    channel_report: dict[str, str] = field(default_factory=dict)
    """What looks at channels report; they fail where it is about no version."""
    checklist_report: dict[str, str] = field(default_factory=lambda: {"reason": "ChecklistPassed", "message": ""})
    """What checklists report, and the exit code with it."""
    broken_images: tuple[str, ...] = ()
    """Images whose pods run and do not become ready."""
    broken_components: tuple[str, ...] = ()
    """The same of components, such as a layer of an agent."""
    addresses: dict[str, str] = field(default_factory=dict)
    """Where the pods of an image answer; 10.0.0.1 where nothing is said."""
    errors: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.15):
            try:
                for pod in self.namespace.list("pods"):
                    self.play(pod)
            except ApiRefusal as refusal:
                if refusal.code not in (404, 409):
                    self.errors.append(str(refusal))

    def play(self, pod: dict[str, Any]) -> None:
        """Say of one pod what its node would say."""
        name, phase = pod["metadata"]["name"], pod.get("status", {}).get("phase")
        if pod["metadata"].get("deletionTimestamp"):
            self.namespace.api.request(
                "DELETE",
                self.namespace.path("pods", name),
                {"gracePeriodSeconds": 0, "propagationPolicy": "Background"},
            )
            return
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component")
        job = component in JOB_COMPONENTS
        runs = self.jobs_run if job else self.agents_run
        runs = runs and _image(pod) not in self.broken_images and component not in self.broken_components
        if runs and phase == "Pending" and pod["spec"].get("nodeName"):
            self.say(pod, self._ended(pod) if job else self._running(pod))

    @contextmanager
    def told(self, **changes: Any) -> Iterator[None]:
        """Play differently for a while."""
        before = {name: getattr(self, name) for name in changes}
        try:
            for name, value in changes.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def say(self, pod: dict[str, Any], status: dict[str, Any]) -> None:
        self.namespace.patch("pods", pod["metadata"]["name"], {"status": status}, "status", "kubelet")

    def _running(self, pod: dict[str, Any]) -> dict[str, Any]:
        states = {"name": "agent", "ready": True, "started": True, "restartCount": 0, "image": "i", "imageID": ""}
        address = self.addresses.get(_image(pod), "10.0.0.1")
        return {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": _conditions("Initialized", "PodScheduled", "ContainersReady", "Ready"),
            "containerStatuses": [{**states, "state": {"running": {"startedAt": _now()}}}],
        }

    def _ended(self, pod: dict[str, Any]) -> dict[str, Any]:
        (container,) = pod["spec"]["containers"]
        if container["name"] == "resolve-channel":
            report, code = self.channel_report, 0 if "version" in self.channel_report else self.job_exit_code
        elif container["name"] == "checklist":
            report, code = self.checklist_report, CHECKLIST_CODES[self.checklist_report["reason"]]
        else:
            report = self.job_report or {"reason": "Synced", "message": "synced"}
            code = 0 if self.job_report is None else self.job_exit_code
        ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": json.dumps(report),
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        states = {"name": container["name"], "ready": False, "restartCount": 0, "image": "i", "imageID": ""}
        return {
            "phase": "Failed" if code else "Succeeded",
            "conditions": _conditions("Initialized", "PodScheduled"),
            "containerStatuses": [{**states, "state": {"terminated": ended}}],
        }


def _image(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _conditions(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True", "lastTransitionTime": _now()} for kind in kinds]


@dataclass
class Operator:
    """One replica of the operator."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Its log; only lines of one event, when given."""
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
        parsed = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in parsed if event in ("", line["event"])]

    def ask(self, path: str) -> tuple[int, str]:
        """What one of its endpoints says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(25)


@dataclass
class Operators:
    """Starts replicas of the operator for a namespace."""

    kubeconfig: Path
    folder: Path
    namespaces: tuple[str, ...]
    lease_namespace: str
    started: list[Operator] = field(default_factory=list)

    def start(self, *flags: str, namespaces: tuple[str, ...] | None = None) -> Operator:
        port, log = free_port(), self.folder / f"operator-{len(self.started)}.log"
        chosen = self.namespaces if namespaces is None else namespaces
        command = [sys.executable, "-m", "supportfleet_operator", "run", "--listen", f"127.0.0.1:{port}"]
        command += ["--kubeconfig", str(self.kubeconfig), "--lease-namespace", self.lease_namespace, *flags]
        for namespace in chosen:
            command += ["--namespace", namespace]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "PYTHONWARNINGS": "default"}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        self.started.append(Operator(process, log, port))
        return self.started[-1]

    def end(self) -> None:
        """End all that still run, at once."""
        for one in self.started:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait(10)


@dataclass(frozen=True)
class Audit:
    """The operator's requests in one namespace, its lease aside, by the API server's audit log."""

    log: Path
    namespace: str
    user: str = OPERATOR
    """Whose requests; everybody's where it is empty."""

    @contextmanager
    def __call__(self, agent: str = "") -> Iterator[list[dict[str, Any]]]:
        """All that it asks meanwhile; of one agent's objects only, where one is named.

        The agents of a test file share a namespace, and an autoscaler looks at its pods every 15 seconds: what the
        operator says of that is no write about another agent.
        """
        start = self.log.stat().st_size
        found: list[dict[str, Any]] = []
        yield found
        time.sleep(1.0)  # a request is logged after its answer
        found += self.requests(start, agent)

    def requests(self, start: int, agent: str = "") -> list[dict[str, Any]]:
        """Requests from a place in the log on."""
        with self.log.open() as lines:
            assert lines.seek(0, os.SEEK_END) >= start, "the log was rotated meanwhile: run the test again"
            lines.seek(start)
            events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if self._is_ours(event) and _is_about(event, agent)]

    def rest(self, agent: str, seconds: float = 2.0, limit: float = 30.0) -> None:
        """Wait until the operator has written nothing about an agent for a while: what it was told of is settled."""
        deadline = time.monotonic() + limit
        while writes := self._within(seconds, agent):
            assert time.monotonic() < deadline, f"no rest after {limit} s: {writes}"

    def _within(self, seconds: float, agent: str) -> list[str]:
        start = self.log.stat().st_size
        time.sleep(seconds)
        return self.writes(self.requests(start, agent))

    def _is_ours(self, event: dict[str, Any]) -> bool:
        reference = event.get("objectRef", {})
        return (
            self.user in ("", event["user"]["username"])
            and event["stage"] == "ResponseComplete"
            and reference.get("resource") != "leases"
            and reference.get("namespace") == self.namespace
        )

    @staticmethod
    def writes(events: list[dict[str, Any]]) -> list[str]:
        """Those that are no reads, in one line each."""
        reads = ("get", "list", "watch")
        return [
            f"{event['requestReceivedTimestamp']} {event['user']['username']} {event['verb']} {event['requestURI']} "
            f"{event['responseStatus']['code']}"
            for event in events
            if event["verb"] not in reads
        ]


def _is_about(event: dict[str, Any], agent: str) -> bool:
    """Whether a request may be about an agent's objects; a new Event has no name yet."""
    name = event["objectRef"].get("name", "")
    return not agent or name in ("", agent) or name.startswith(f"{agent}-")


@pytest.fixture(scope="session")
def api(control_plane: Any) -> Api:
    """The API server, as its administrator."""
    return Api(control_plane.kubeconfig)


@pytest.fixture(scope="session")
def installed(control_plane: Any) -> Any:
    """The CRD, the ServiceAccount and its rights, from manifests/; the Deployment has no node to run on."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests" / "default"))
    control_plane.kubectl("-n", SYSTEM, "scale", "deployment/supportfleet-operator", "--replicas=0")
    DESK["established"](control_plane, {"supportagents.supportfleet.dev": "SupportAgent"})
    return control_plane


@pytest.fixture(scope="session")
def operator_kubeconfig(installed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig that holds a token of the operator's ServiceAccount, and nothing else."""
    config = yaml.safe_load(Path(installed.kubeconfig).read_text())
    token = installed.kubectl("-n", SYSTEM, "create", "token", "supportfleet-operator", "--duration=3h").stdout.strip()
    config["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("kubeconfig") / "operator"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="session")
def node(api: Api) -> Iterator[None]:
    """A node that is always ready and has room, as far as the scheduler can see."""
    name = {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "pool": "agents"}}}
    with suppress(ApiRefusal):  # of another run that was killed
        api.request("DELETE", f"/api/v1/nodes/{NODE}")
    api.request("POST", "/api/v1/nodes", name)
    room = {"cpu": "64", "memory": "256Gi", "pods": "500"}

    def beat(stop: threading.Event) -> None:
        while True:
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
            status = {"conditions": [ready], "capacity": room, "allocatable": room}
            with suppress(ApiRefusal, OSError):  # what a busy API server can't do now is due again in five seconds
                api.request("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status}, "application/merge-patch+json")
            if stop.wait(5):
                return

    with meanwhile(beat):
        yield
    api.request("DELETE", f"/api/v1/nodes/{NODE}")


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, installed: Any, api: Api, node: None) -> Iterator[Namespace]:
    """The namespace of a test file."""
    name = f"f-{zlib.crc32(request.node.nodeid.encode()):08x}-{os.getpid()}"
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield Namespace(api, name, lambda *arguments, **more: installed.kubectl("-n", name, *arguments, **more))
    api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="module")
def kubelet(place: Namespace) -> Iterator[Kubelet]:
    """The node that the test plays."""
    kubelet = Kubelet(place)
    with meanwhile(kubelet.run):
        yield kubelet
    assert not kubelet.errors


@pytest.fixture(scope="module")
def operators(
    installed: Any, operator_kubeconfig: Path, place: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operators]:
    """Replicas of the operator; all that a test starts end with it."""
    lease = place.name
    role = {"rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]}
    subject = {"kind": "ServiceAccount", "name": "supportfleet-operator", "namespace": SYSTEM}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{lease}"
    place.api.request("POST", f"{rbac}/roles", {"metadata": {"name": "lease"}, **role})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease"}
    place.api.request(
        *("POST", f"{rbac}/rolebindings"),
        {"metadata": {"name": "lease"}, "roleRef": reference, "subjects": [subject]},
    )
    operators = Operators(operator_kubeconfig, tmp_path_factory.mktemp("logs"), (place.name,), lease)
    yield operators
    operators.end()


@pytest.fixture(scope="module")
def operator(operators: Operators, eventually: Callable[..., Any]) -> Operator:
    """One replica that leads."""
    operator = operators.start()
    eventually(lambda: operator.lines("caches filled"), "the operator leads", seconds=30)
    return operator


@pytest.fixture(scope="module")
def eventually(place: Namespace) -> Callable[..., Any]:
    """Wait for something that the cluster brings about."""

    def wait(condition: Callable[[], Any], message: str = "", seconds: float = 40) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            if found := condition():
                return found
            if time.monotonic() > deadline:
                agents = [(one["metadata"]["name"], one.get("status")) for one in place.list("supportagents")]
                raise AssertionError(f"not within {seconds} s: {message}\n{json.dumps(agents, indent=1)}")
            time.sleep(0.15)

    return wait


@pytest.fixture(scope="session")
def definitions(unavailable: Any) -> list[dict[str, Any]]:
    """The definitions of what routes, as Istio and the Gateway API publish them."""
    found = []
    for module, file in PUBLISHED.items():
        try:
            with Progress() as progress:
                folder = asyncio.run(binaries.module_dir("istio", module, progress=progress))
        except BuildError as error:
            unavailable(f"the Go module {module}", f"see what local_cluster/istio needs: {error}")
        found += [one for one in yaml.safe_load_all((folder / file).read_text()) if one]
    return [one for one in found if one["spec"]["names"]["kind"] in ROUTES]


@pytest.fixture(scope="module")
def database(place: Namespace) -> None:
    """The Secret that agents with a database name."""
    place.secret("postgres-credentials", DATABASE_URL="postgresql://u:p@h/d")


@pytest.fixture(scope="module")
def istio(place: Namespace) -> Iterator[None]:
    """Istio's kind, as far as the API server is concerned."""
    with DESK["istio_kind"](place):
        yield


@pytest.fixture
def desk(
    request: pytest.FixtureRequest,
    place: Namespace,
    operator: Operator,
    kubelet: Kubelet,
    eventually: Callable[..., Any],
) -> Iterator[Any]:
    """An agent of the test's own, and what people do with it."""
    one = DESK["Desk"](place, eventually, "d" + format(abs(hash(request.node.name)) % 10**8, "d"))
    yield one
    place.delete("supportagents", one.name)


@pytest.fixture
def audit(control_plane: Any, place: Namespace) -> Audit:
    """What the audit log says of the operator in this namespace."""
    return Audit(control_plane.audit_log, place.name)


@pytest.fixture
def example() -> Callable[[str], dict[str, Any]]:
    """An example by its number."""

    def load(number: str) -> dict[str, Any]:
        (path,) = (ROOT / "examples").glob(f"{number}-*.yaml")
        agent: dict[str, Any] = yaml.safe_load(path.read_text())
        return agent

    return load
