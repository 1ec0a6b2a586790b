"""Fixtures every tier uses: tier markers, prerequisites, and the clusters that tests run on.

A test's folder is its tier: ``tests/cluster`` has a control plane without nodes, ``tests/services`` real servers,
``tests/e2e`` nodes and pods. Where a prerequisite is missing a test skips and says how to get it; with
``SUPPORTFLEET_REQUIRE_ALL=1`` (continuous integration) it fails instead.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

import pytest

ROOT = Path(__file__).parent.parent
TIERS = ("cluster", "services", "e2e", "browser")
UP_TIMEOUT = 1800


class Unavailable(Protocol):
    def __call__(self, what: str, how: str) -> NoReturn: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder's tier, and run the cheap tiers first."""
    for item in items:
        tier = item.path.relative_to(ROOT / "tests").parts[0] if item.path.is_relative_to(ROOT / "tests") else ""
        if tier in TIERS:
            item.add_marker(tier)
    items.sort(key=_tier_rank)


def _tier_rank(item: pytest.Item) -> int:
    return max((TIERS.index(mark) + 1 for mark in TIERS if item.get_closest_marker(mark)), default=0)


def _unavailable(what: str, how: str) -> NoReturn:
    if os.environ.get("SUPPORTFLEET_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is missing, and this run must not skip: {how}", pytrace=False)
    pytest.skip(f"{what} is missing: {how}")


def pytest_configure() -> None:
    """Let what tests start be ended by Ctrl-C, though a shell that runs this in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def unavailable() -> Unavailable:
    """Skip with the remedy, or fail where nothing may be skipped."""
    return _unavailable


@dataclass(frozen=True)
class Kubernetes:
    """A cluster under test: kubectl against it, and what ``supportfleet local status`` says of it, where it is ours."""

    kubeconfig: Path
    kubectl_path: str
    info: dict[str, Any]

    @property
    def env(self) -> dict[str, str]:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        if self.info:
            # Clusters come and go at one address, by which kubectl remembers what kinds there are, and of which group.
            environment["KUBECACHEDIR"] = str(self.kubeconfig.parent / "kubectl-cache")
        return environment

    @property
    def audit_log(self) -> Path:
        if "auditLog" not in self.info:
            _unavailable("the API server's audit log", "run this test on a cluster of 'supportfleet local up'")
        return Path(self.info["auditLog"])

    def kubectl(
        self, *arguments: str, stdin: str | bytes | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; with ``check``, a failure carries what kubectl said."""
        done = subprocess.run(
            [self.kubectl_path, *arguments],
            input=stdin.decode() if isinstance(stdin, bytes) else stdin,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get … -o json`` answers."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)


def _local(*arguments: str, timeout: float = UP_TIMEOUT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supportfleet", "local", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "SUPPORTFLEET_FAST": "1"},
    )


def _embedded(name: str, nodes: int) -> Iterator[Kubernetes]:
    if os.geteuid() != 0:
        _unavailable("root", "the embedded cluster makes network namespaces: run as root, or set KUBECONFIG")
    with (Path(tempfile.gettempdir()) / f"supportfleet-{name}.lock").open("w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        up = _local("up", "--name", name, "--nodes", str(nodes), "--provider", "embedded", "--yes")
        if up.returncode:
            pytest.fail(f"local up --name {name}: exit {up.returncode}\n{up.stdout}\n{up.stderr}", pytrace=False)
        info = json.loads(_local("status", "--name", name, "-o", "json").stdout)
        yield Kubernetes(Path(info["kubeconfig"]), info["kubectl"], info)
        if os.environ.get("SUPPORTFLEET_KEEP") != "1" and _is_last(used):
            down = _local("down", "--name", name)
            assert down.returncode == 0, down.stdout + down.stderr


def _is_last(used: IO[str]) -> bool:
    """Whether no other run of tests on this machine uses the cluster; none begins to before the file is closed."""
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Kubernetes]:
    """A real API server and controller-manager with no nodes: tests play the kubelet."""
    yield from _embedded("sft-control", nodes=0)


@pytest.fixture(scope="session")
def kubernetes_cluster() -> Iterator[Kubernetes]:
    """A cluster with nodes: the one KUBECONFIG names, else an embedded one made for this run."""
    if given := os.environ.get("KUBECONFIG"):
        yield Kubernetes(Path(given), os.environ.get("KUBECTL", "kubectl"), {})
        return
    yield from _embedded("sft-e2e", nodes=2)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own on the tier's cluster, gone afterwards."""
    tier = "control_plane" if request.node.get_closest_marker("cluster") else "kubernetes_cluster"
    cluster: Kubernetes = request.getfixturevalue(tier)
    name = f"t-{zlib.crc32(request.node.nodeid.encode()):08x}-{os.getpid()}"
    cluster.kubectl("create", "namespace", name)
    # Pods are refused until a controller has made the namespace's own ServiceAccount.
    cluster.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
