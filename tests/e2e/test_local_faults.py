"""What `supportfleet local` promises when things are killed, interrupted, lost or in the way.

Every cluster here is this module's own; whether one leaves something behind is judged by looking at the machine, not by
asking the program that cleans up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest

RUN = Path("/run/supportfleet")
CGROUPS = Path("/sys/fs/cgroup")
UP_SECONDS = 600

pytestmark = pytest.mark.timeout(900)


class Unavailable(Protocol):
    def __call__(self, what: str, how: str) -> NoReturn: ...


@pytest.fixture(scope="module", autouse=True)
def embedded(unavailable: Unavailable) -> None:
    """These tests need root, and are about this machine: a cluster that is given by KUBECONFIG is not touched."""
    if os.geteuid() != 0:
        unavailable("root", "the embedded cluster makes network namespaces: run as root")


class Local:
    """`supportfleet local` for one cluster, with a state folder of its own."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.folder = home / "clusters" / name
        self.environ = {**os.environ, "SUPPORTFLEET_HOME": str(home), "SUPPORTFLEET_FAST": "1"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", self.name]
        return subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=UP_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def up(self, *arguments: str) -> None:
        done = self.run("up", "--provider", "embedded", "--yes", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> str:
        done = self.run("down")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "-o", "json").stdout)
        return found

    def pids(self) -> dict[str, int]:
        """The process of each component that runs."""
        records = {path.name: int(path.read_text().split()[0]) for path in (RUN / self.name / "daemons").iterdir()}
        return {name: pid for name, pid in records.items() if Path(f"/proc/{pid}").exists()}

    def kill(self, *components: str) -> None:
        pids = self.pids()
        for component in components:
            os.kill(pids[component], signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pids[component]}").exists() for component in components):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @cached_property
    def kubectl_path(self) -> str:
        path: str = self.status()["kubectl"]
        return path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self.kubectl_path, "--kubeconfig", str(self.folder / "kubeconfig"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def traces(self) -> list[str]:
        """Everything of this cluster that is on the machine."""
        ours = re.compile(
            rf"/run/supportfleet/{self.name}(/|$)|{re.escape(str(self.folder))}|sf-{self.name}-(control|node)"
        )
        links = _output("ip", "-details", "link")
        mounted = Path("/proc/self/mountinfo").read_text().replace("\\040", " ")
        found = [f"mount {line}" for line in mounted.splitlines() if ours.search(line)]
        found += [f"namespace {line}" for line in _output("ip", "netns").splitlines() if ours.search(line)]
        found += [f"link {line}" for line in links.splitlines() if f"supportfleet:{self.name}" in line.split()]
        found += [f"cgroup {path}" for path in CGROUPS.glob(f"**/supportfleet-{self.name}")]
        found += [f"process {line}" for line in self._processes()]
        paths = (RUN / self.name, self.folder, self.home / "locks" / f"{self.name}.lock")
        return found + [f"file {path}" for path in paths if path.exists()]

    def _processes(self) -> Iterator[str]:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            try:
                cgroup, command = (entry / "cgroup").read_text(), (entry / "cmdline").read_bytes().decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if not command:
                continue  # what has ended has no command line, only an exit code that its parent has not read yet
            if f"/supportfleet-{self.name}/" in cgroup or str(self.folder) in command:
                yield f"{entry.name} {command}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def firewall() -> str:
    """The rules of this machine, without what counts or tells the time."""
    return "\n".join(line for line in _output("iptables-save").splitlines() if line[:1] not in "#:")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home with a space")


@pytest.fixture(scope="module")
def make(home: Path) -> Iterator[Callable[[str], Local]]:
    """Clusters by name, taken down at the end."""
    made: dict[str, Local] = {}

    def cluster(name: str) -> Local:
        return made.setdefault(name, Local(name, home))

    yield cluster
    for local in made.values():
        local.down()


@pytest.fixture
def healthy(make: Callable[[str], Local]) -> Local:
    """A cluster of one node with a web server that has answered."""
    local = make("sft-heal")
    local.up("--nodes", "1")
    local.kubectl("apply", "-f", "-", stdin=json.dumps(WEB))
    local.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    return local


def labelled(kind: str, version: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec}


SERVER = {
    "name": "web",
    "image": "docker.io/supportfleet/base:dev",
    "command": ["python3", "-m", "http.server", "8080", "--directory", "/data"],
    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
}
POD = {"containers": [SERVER], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "web"}}]}
WEB = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        labelled(
            "PersistentVolumeClaim",
            "v1",
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        ),
        labelled(
            "Deployment",
            "apps/v1",
            {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD},
            },
        ),
        labelled("Service", "v1", {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}),
    ],
}


def answers(local: Local) -> bool:
    """Whether this machine reaches the web server through its Service, by when kube-proxy has heard of it."""
    address = local.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    retry = ("--retry", "10", "--retry-all-errors", "--retry-delay", "1")
    asked = subprocess.run(
        ["curl", "-sf", "--max-time", "3", *retry, f"http://{address}/"], check=False, capture_output=True, timeout=90
    )
    return asked.returncode == 0


def test_down_leaves_nothing(make: Callable[[str], Local], healthy: Local) -> None:
    """After `down` no process, mount, namespace, link, cgroup, file or firewall rule of the cluster is there."""
    rules = firewall()
    assert {trace.split()[0] for trace in healthy.traces()} == {
        "mount", "namespace", "link", "cgroup", "process", "file",
    }  # fmt: skip
    assert "sft-heal is gone" in healthy.down()
    assert healthy.traces() == []
    assert firewall() == rules
    assert "There is no cluster" in healthy.down()


def test_up_on_a_running_cluster_changes_nothing(healthy: Local) -> None:
    """A second `up` restarts nothing, and is quick."""
    before = healthy.pids()
    began = time.monotonic()
    healthy.up()
    assert healthy.pids() == before
    assert time.monotonic() - began < 30  # some two seconds, on a machine that does nothing else


@pytest.mark.parametrize(
    "victims",
    [
        ("etcd",),
        ("kube-apiserver",),
        ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        ("node1-containerd",),
        ("node1-kubelet", "node1-kube-proxy"),
        ("coredns", "s3", "postgres", "metrics-server", "local-path-provisioner", "log-rotation"),
    ],
    ids=",".join,
)
def test_up_heals_what_was_killed(healthy: Local, victims: tuple[str, ...]) -> None:
    """After kill -9 `status` says what is missing, and `up` starts just that; pods and data go on."""
    before = healthy.pids()
    pod = healthy.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid} {..restartCount}")
    healthy.kill(*victims)
    status = healthy.status()
    assert status["state"] == "Degraded"
    assert {part["name"] for part in status["components"] if part["state"] == "Stopped"} == set(victims)
    healthy.up()
    assert healthy.status()["state"] == "Running"
    after = healthy.pids()
    assert {name for name in after if after[name] != before[name]} == set(victims)
    assert healthy.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid} {..restartCount}") == pod
    assert answers(healthy)


@pytest.mark.parametrize(
    "victims",
    [
        ("node1-containerd", "node1-kubelet"),
        ("etcd", "kube-apiserver", "node1-containerd", "node1-kubelet", "node1-kube-proxy", "postgres", "s3"),
    ],
    ids=["node", "nearly everything"],
)
def test_down_after_kills_leaves_nothing(healthy: Local, victims: tuple[str, ...]) -> None:
    """Pods whose containerd is dead, and whatever else a crash leaves, are found and go too."""
    healthy.kill(*victims)
    healthy.down()
    assert healthy.traces() == []


def lose_everything(local: Local) -> None:
    shutil.rmtree(local.folder, ignore_errors=True)
    shutil.rmtree(RUN / local.name / "daemons")
    (RUN / local.name / "state").unlink()


def half_write(local: Local) -> None:
    (local.folder / "cluster.json").write_text('{"name": "sft-h')
    for record in (RUN / local.name / "daemons").iterdir():
        record.write_text("12")


@pytest.mark.parametrize("lose", [lose_everything, half_write])
def test_down_needs_only_the_name(healthy: Local, lose: Callable[[Local], None]) -> None:
    """With its state lost or half-written a running cluster is still taken down whole."""
    lose(healthy)
    healthy.down()
    assert healthy.traces() == []


def test_a_cluster_made_with_another_state_folder(healthy: Local, tmp_path: Path) -> None:
    """From elsewhere `up` refuses to touch a cluster of that name, and `down` takes it down with its folder."""
    elsewhere = Local(healthy.name, tmp_path / "elsewhere")
    refused = elsewhere.run("up", "--provider", "embedded")
    assert refused.returncode == 1
    assert str(healthy.folder) in refused.stderr
    assert "local down --name sft-heal" in refused.stderr
    assert answers(healthy)
    elsewhere.down()
    assert healthy.traces() == []
    assert elsewhere.traces() == []


@pytest.mark.parametrize("seconds", [1.0, 2.0, 3.0, 5.0, 8.0])
def test_an_interrupted_up_is_resumed(make: Callable[[str], Local], seconds: float) -> None:
    """Killed at any moment, with every program it was running, `up` goes on from there the next time."""
    local = make("sft-cut")
    with local.start("up", "--provider", "embedded", "--yes") as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
    local.up()
    assert local.status()["state"] == "Running"
    local.down()
    assert local.traces() == []


def test_down_of_an_interrupted_up(make: Callable[[str], Local]) -> None:
    """A cluster that was never finished is taken down like any other."""
    local = make("sft-cut")
    with local.start("up", "--provider", "embedded", "--yes") as process:
        time.sleep(2.5)
        os.killpg(process.pid, signal.SIGKILL)
    local.down()
    assert local.traces() == []


@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.5])
def test_an_interrupted_down_is_finished(make: Callable[[str], Local], seconds: float) -> None:
    """Killed while it takes a cluster down, `down` finishes the next time."""
    local = make("sft-cut")
    local.up()
    with local.start("down") as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
    local.down()
    assert local.traces() == []


def test_two_clusters_side_by_side(make: Callable[[str], Local], healthy: Local) -> None:
    """Clusters do not see each other; one can go while the other stays."""
    other = make("sft-heal-node1")  # a name that begins like the other's namespaces
    other.up("--nodes", "1")
    assert other.status()["server"] != healthy.status()["server"]
    assert "web" in healthy.kubectl("get", "services")
    assert "web" not in other.kubectl("get", "services")
    other.down()
    assert other.traces() == []
    assert answers(healthy)
    assert healthy.status()["state"] == "Running"


def reboot(local: Local) -> None:
    """What a restart of the machine leaves: the state folder, and nothing that runs."""
    kept = local.folder.with_name("kept")
    local.folder.rename(kept)
    local.down()
    kept.rename(local.folder)


def test_a_cluster_survives_a_reboot(healthy: Local) -> None:
    """After a reboot `status` says that it is stopped, and `up` brings it back with its objects and volumes."""
    volume = healthy.kubectl("get", "pv", "-o", "jsonpath={.items[*].metadata.name} {.items[*].metadata.uid}")
    reboot(healthy)
    assert healthy.status()["state"] == "Stopped"
    healthy.up()
    healthy.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    healthy.kubectl("wait", "pods", "-l", "app=web", "--for=condition=Ready", "--timeout=120s")
    assert healthy.kubectl("get", "pv", "-o", "jsonpath={.items[*].metadata.name} {.items[*].metadata.uid}") == volume
    assert answers(healthy)


def test_addresses_that_are_in_use(healthy: Local) -> None:
    """A cluster whose addresses were taken meanwhile says by what and what to do; a new one takes others."""
    server = healthy.status()["server"]
    index = int(server.split(".")[2])
    reboot(healthy)
    _output("ip", "link", "add", "sft-clash", "type", "bridge")
    try:
        _output("ip", "link", "set", "sft-clash", "up")
        _output("ip", "route", "add", f"10.{90 + index}.7.0/24", "dev", "sft-clash")
        refused = healthy.run("up")
        assert refused.returncode == 1
        assert f"10.{90 + index}.7.0/24" in refused.stderr
        assert "local down --name sft-heal" in refused.stderr
        healthy.down()
        healthy.up("--nodes", "0")
        assert healthy.status()["server"] != server
    finally:
        _output("ip", "link", "delete", "sft-clash")
    healthy.down()


def test_a_name_that_is_taken(make: Callable[[str], Local]) -> None:
    """Where a namespace of that name is there already nothing is started in it: the error says how to go on."""
    local = make("sft-taken")
    _output("ip", "netns", "add", "sf-sft-taken-control")
    refused = local.run("up", "--provider", "embedded")
    assert refused.returncode == 1
    assert "local down --name sft-taken" in refused.stderr
    local.down()
    assert local.traces() == []


def test_nodes_come_and_go(healthy: Local) -> None:
    """`up --nodes` adds and removes nodes of a running cluster, and a removed one leaves nothing."""
    healthy.up("--nodes", "2")
    assert len(healthy.status()["nodes"]) == 2
    healthy.up("--nodes", "1")
    assert [node["name"] for node in healthy.status()["nodes"]] == ["sft-heal-node1"]
    assert not [trace for trace in healthy.traces() if "node2" in trace]
    assert answers(healthy)
