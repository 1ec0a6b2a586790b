"""What a local cluster offers, seen from its pods and from this machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest

BASE = "docker.io/supportfleet/base:dev"
ASK = """
import sys, time, urllib.request
for attempt in range(20):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=3).read().decode())
        break
    except OSError:
        if attempt == 19:
            raise
        time.sleep(0.5)
"""
"""Asks for a page, for up to some ten seconds where nothing listens yet."""


class Unavailable(Protocol):
    def __call__(self, what: str, how: str) -> NoReturn: ...


class Cluster(Protocol):
    kubeconfig: Path
    kubectl_path: str
    info: dict[str, Any]

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]: ...

    def get(self, *arguments: str) -> Any: ...


@pytest.fixture
def local(kubernetes_cluster: Cluster, unavailable: Unavailable) -> Cluster:
    """A cluster that `supportfleet local` made: these tests are about what it adds to Kubernetes."""
    if not kubernetes_cluster.info:
        unavailable("a cluster of 'supportfleet local'", "unset KUBECONFIG")
    return kubernetes_cluster


Python = Callable[..., str]


@pytest.fixture
def python(local: Cluster, namespace: str) -> Python:
    """Run a Python program in a pod and return what it prints."""

    def run(program: str, **spec: Any) -> str:
        container = {"name": "main", "image": BASE, "command": ["python3", "-u", "-c", program], **spec.pop("main", {})}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe"},
            "spec": {"restartPolicy": "Never", "containers": [container], **spec},
        }
        local.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(pod))
        ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
        local.kubectl("-n", namespace, "wait", "pod/probe", ended, "--timeout=90s", timeout=100)
        said = local.kubectl("-n", namespace, "logs", "probe").stdout
        code = local.get("-n", namespace, "pod", "probe")["status"]["containerStatuses"][0]["state"]["terminated"]
        assert code["exitCode"] == 0, said
        return said

    return run


def test_names_are_resolved(python: Python) -> None:
    """Pods find Services by name, short and full, and learn at once that a name of elsewhere does not exist."""
    said = python(
        "import socket, time\n"
        "names = 'kubernetes.default', 's3.supportfleet-local', 'postgres.supportfleet-local.svc.cluster.local'\n"
        "print(*map(socket.gethostbyname, names))\n"
        "began = time.monotonic()\n"
        "try: socket.gethostbyname('example.com')\n"
        "except socket.gaierror as error: print(error.errno == socket.EAI_NONAME, time.monotonic() - began < 5)\n"
    )
    assert re.fullmatch(r"(10\.\d+\.\d+\.\d+ ?){3}\nTrue True\n", said)


def test_there_is_no_way_out(python: Python) -> None:
    """A pod that tries to leave the cluster is told so at once, and does not wait for a timeout."""
    said = python(
        "import errno, socket, time\n"
        "began = time.monotonic()\n"
        "try: socket.create_connection(('198.51.100.1', 443), 30)\n"
        "except OSError as error: print(errno.errorcode[error.errno], time.monotonic() - began < 5)\n"
    )
    assert said in ("ENETUNREACH True\n", "EHOSTUNREACH True\n")


def test_servers_are_reached_from_pods(python: Python) -> None:
    """PostgreSQL and S3 answer at the addresses that their Secrets and Services name."""
    said = python(
        "import os, socket, urllib.parse, urllib.request\n"
        "url = urllib.parse.urlparse(os.environ['DATABASE_URL'])\n"
        "server = socket.create_connection((url.hostname, url.port), 10)\n"
        "server.sendall(bytes.fromhex('0000000804d2162f')); print(server.recv(1))\n"
        "print(urllib.request.urlopen('http://s3.supportfleet-local:9000/health', timeout=10).read())\n",
        main={"env": [{"name": "DATABASE_URL", "value": "postgresql://postgres.supportfleet-local:5432/supportfleet"}]},
    )
    assert said == "b'N'\nb'OK'\n"


@pytest.mark.parametrize("where", ["default", "supportfleet-local"])
def test_credentials_are_secrets(local: Cluster, where: str) -> None:
    """Agents find how to sign in to S3 and PostgreSQL in Secrets, which are not the same for every cluster."""
    s3 = local.get("-n", where, "secret", "s3-credentials")["data"]
    assert set(s3) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(local.get("-n", where, "secret", "postgres-credentials")["data"]) == {"DATABASE_URL"}
    assert len(s3["AWS_SECRET_ACCESS_KEY"]) > 40


def test_this_machine_reaches_s3(local: Cluster) -> None:
    """`status` says where S3 is reached from here."""
    with urllib.request.urlopen(f"{local.info['s3']['endpoint']}/health", timeout=10) as answer:  # noqa: S310 - http
        assert answer.read() == b"OK"


def test_volumes_are_provisioned(local: Cluster, python: Python, namespace: str) -> None:
    """A claim without a class gets a volume that a pod writes to as any user, and that goes with the claim."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    local.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(claim))
    said = python(
        "open('/data/file', 'w').write('kept'); print(open('/data/file').read())",
        main={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        securityContext={"runAsUser": 65532},
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    assert said == "kept\n"
    volume = local.get("-n", namespace, "pvc", "data")["spec"]["volumeName"]
    folder = Path(local.info["logs"]).parent
    assert len(list(folder.glob(f"node*/var/lib/supportfleet/volumes/{volume}_*"))) == 1
    local.kubectl("-n", namespace, "delete", "pod", "probe", "--grace-period=0", "--force")
    local.kubectl("-n", namespace, "delete", "pvc", "data", "--timeout=60s")
    local.kubectl("wait", f"pv/{volume}", "--for=delete", "--timeout=60s")
    assert list(folder.glob(f"node*/var/lib/supportfleet/volumes/{volume}_*")) == []


def test_metrics_are_served(local: Cluster) -> None:
    """`kubectl top` works, which is what autoscalers go by."""
    deadline = time.monotonic() + 90
    while (done := local.kubectl("top", "nodes", "--no-headers", check=False)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)
    assert len(done.stdout.splitlines()) == len(local.info["nodes"])


def test_nodes_have_room(local: Cluster) -> None:
    """Each node offers more CPU than the machine may have, and goes on doing so when its kubelet reports."""
    for node in local.get("nodes")["items"]:
        assert node["status"]["capacity"]["cpu"] == node["status"]["allocatable"]["cpu"] == "16"
        local.kubectl(
            *("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=merge", "-p"),
            json.dumps({"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}}),
        )
    assert {node["status"]["allocatable"]["cpu"] for node in local.get("nodes")["items"]} == {"16"}


def test_pods_of_different_nodes_reach_each_other(local: Cluster, namespace: str) -> None:
    """A pod on one node is reached through a Service from a pod on another, and from this machine."""
    names = [node["name"] for node in local.info["nodes"]]
    for node in names:
        server = [
            "sh",
            "-c",
            "mkdir /tmp/web && hostname > /tmp/web/index.html && python3 -m http.server -d /tmp/web 80",
        ]
        probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"on-{node}", "labels": {"on": node}},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "web", "image": BASE, "command": server, "readinessProbe": probe}],
            },
        }
        local.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(pod))
        local.kubectl("-n", namespace, "expose", "pod", f"on-{node}", "--port=80")
    local.kubectl("-n", namespace, "wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s", timeout=70)
    # A Service follows its pods' readiness a moment later: kube-proxy has to hear of it.
    for source in names:
        for target in names:
            ask = ("-n", namespace, "exec", f"on-{source}", "--", "python3", "-c", ASK, f"http://on-{target}")
            assert local.kubectl(*ask, timeout=70).stdout.strip() == f"on-{target}"
        address = local.get("-n", namespace, "service", f"on-{source}")["spec"]["clusterIP"]
        told = subprocess.run(
            [sys.executable, "-c", ASK, f"http://{address}"], capture_output=True, text=True, timeout=70, check=True
        )
        assert told.stdout.strip() == f"on-{source}"


def test_requests_are_audited(local: Cluster, until: Callable[..., Any]) -> None:
    """The audit log that `status` names holds who asked for what, and no content of it."""
    name = f"audited-{time.monotonic_ns()}"
    local.kubectl("-n", "default", "create", "secret", "generic", name, "--from-literal=key=planted-secret")
    local.kubectl("-n", "default", "delete", "secret", name)
    log = Path(local.info["auditLog"])

    def told() -> set[tuple[str, str]]:
        lines = (line for line in log.read_text().splitlines(keepends=True) if name in line and line.endswith("\n"))
        return {(event["verb"], event["user"]["username"]) for event in map(json.loads, lines)}

    wanted = {("create", "kubernetes-admin"), ("delete", "kubernetes-admin")}
    until(lambda: told() >= wanted, message="a request is logged after its answer")
    assert "planted-secret" not in log.read_text()


def test_pod_security_is_enforced(local: Cluster, namespace: str, until: Callable[..., Any]) -> None:
    """A namespace that asks for `restricted` refuses a pod that is not."""
    local.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    trial = ("-n", namespace, "run", "root", f"--image={BASE}")
    # What admits pods hears of the label a moment later.
    until(lambda: local.kubectl(*trial, "--dry-run=server", check=False).returncode, message="it is enforced")
    refused = local.kubectl(*trial, check=False)
    assert refused.returncode == 1
    assert "violates PodSecurity" in refused.stderr


def test_the_kubeconfig_and_logs_are_given(local: Cluster) -> None:
    """`kubeconfig` prints the file or its path, `logs` the names of all components, and of each what it wrote."""

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", local.info["name"]]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert said("kubeconfig", "--path").strip() == str(local.kubeconfig)
    assert said("kubeconfig") == local.kubeconfig.read_text()
    components = said("logs").splitlines()
    assert {"etcd", "kube-apiserver", "kube-scheduler"} <= {*components}
    assert re.match(r"[IWE]\d{4} \d\d:", said("logs", "kube-apiserver"))
