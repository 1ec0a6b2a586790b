"""The operator on a cluster with nodes, a published model, and a way to talk to agents.

Nothing here is particular to the embedded cluster but how images get onto its nodes: with KUBECONFIG set, the images
``supportfleet/operator:dev`` and ``supportfleet/agent:dev`` must be there, and ``SUPPORTFLEET_S3_ENDPOINT`` must be
where this machine reaches the S3 server that pods know as ``s3.supportfleet-local``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
MODEL = ROOT / "examples" / "models" / "intent"
SYSTEM = "supportfleet-system"


class Cluster(Protocol):
    """What tests/conftest.py's Kubernetes gives."""

    kubeconfig: Path
    kubectl_path: str
    info: dict[str, Any]
    env: dict[str, str]
    audit_log: Path

    def kubectl(
        self, *arguments: str, stdin: str | bytes | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]: ...

    def get(self, *arguments: str) -> Any: ...


def _local(cluster: Cluster, *arguments: str) -> None:
    command = [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", cluster.info["name"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def images(kubernetes_cluster: Cluster) -> None:
    """The operator's and the agent's image are on every node."""
    if kubernetes_cluster.info:
        _local(kubernetes_cluster, "load-image", "supportfleet/operator:dev", "supportfleet/agent:dev")


@pytest.fixture(scope="session")
def s3_environment(kubernetes_cluster: Cluster) -> dict[str, str]:
    """How this machine reaches the cluster's S3 server."""
    secret = kubernetes_cluster.get("-n", "supportfleet-local", "secret", "s3-credentials")["data"]
    endpoint = os.environ.get("SUPPORTFLEET_S3_ENDPOINT") or kubernetes_cluster.info["s3"]["endpoint"]
    return {
        **{name: b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }


@pytest.fixture(scope="session")
def published_model(s3_environment: dict[str, str]) -> str:
    """The digest of the example model, published at s3://models/intent."""
    done = subprocess.run(
        [sys.executable, "-m", "supportfleet_runtime", "publish-model", str(MODEL), "s3://models/intent"],
        env={**os.environ, **s3_environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"sha256:[0-9a-f]{64}", done.stdout)
    assert found, done.stdout
    return found.group()


@pytest.fixture(scope="session")
def operator(kubernetes_cluster: Cluster, images: None) -> Cluster:
    """The operator, installed from manifests/ as a user does it."""
    cluster = kubernetes_cluster
    cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests" / "default"))
    cluster.kubectl(
        *("-n", SYSTEM, "rollout", "status", "deployment/supportfleet-operator", "--timeout=150s"), timeout=160
    )
    return cluster


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that came through the API server's proxy to a Service or a pod."""

    status: int
    body: Any
    raw: bytes


class Talk(Protocol):
    def __call__(
        self, path: str, body: Any = None, *, service: str = "", pod: str = "", method: str = ""
    ) -> Answer: ...


@pytest.fixture(scope="session")
def api_proxy(kubernetes_cluster: Cluster) -> Iterator[str]:
    """Where ``kubectl proxy`` serves the API server on loopback."""
    command = [kubernetes_cluster.kubectl_path, "proxy", "--port=0"]
    with subprocess.Popen(command, env=kubernetes_cluster.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, "kubectl proxy did not say where it serves"
        yield f"http://{found.group()}"
        process.terminate()


@pytest.fixture
def talk(api_proxy: str, namespace: str) -> Talk:
    """Send a request to an agent's Service (or to one of its pods) in the test's namespace."""

    def send(path: str, body: Any = None, *, service: str = "", pod: str = "", method: str = "") -> Answer:
        target = f"pods/{pod}:8080" if pod else f"services/{service}:http"
        request = urllib.request.Request(  # noqa: S310 - the scheme is http, to loopback
            f"{api_proxy}/api/v1/namespaces/{namespace}/{target}/proxy{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method or ("GET" if body is None else "POST"),
        )
        try:
            with urllib.request.urlopen(request, timeout=40) as response:  # noqa: S310 - as above
                raw, status = response.read(), response.status
        except urllib.error.HTTPError as error:
            raw, status = error.read(), error.code
        try:
            parsed = json.loads(raw)
        except ValueError:
            parsed = None
        return Answer(status, parsed, raw)

    return send


@pytest.fixture
def reached(talk: Talk, until: Callable[..., Any]) -> Callable[[str], None]:
    """Wait until a Service passes requests on: it hears of its pods' readiness by another way than the operator."""
    return lambda service: until(
        lambda: talk("/readyz", service=service).status == 200, message=f"the Service {service} has a pod"
    )


@pytest.fixture
def example(operator: Cluster, namespace: str, published_model: str) -> Callable[..., dict[str, Any]]:
    """Load an example as its SupportAgent, for the test's namespace, with the published model's digest."""
    for secret in ("s3-credentials", "postgres-credentials"):
        found = operator.get("-n", "supportfleet-local", "secret", secret)
        copy = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret, "namespace": namespace},
            "data": found["data"],
        }
        operator.kubectl("apply", "-f", "-", stdin=json.dumps(copy))
    operator.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

    def load(name: str) -> dict[str, Any]:
        documents = yaml.safe_load_all((ROOT / "examples" / name).read_text())
        agent: dict[str, Any] = next(document for document in documents if document["kind"] == "SupportAgent")
        agent["metadata"]["namespace"] = namespace
        if "model" in agent["spec"]:
            assert agent["spec"]["model"]["digest"] == published_model, "the example names the committed model's digest"
        return agent

    return load


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait until a probe answers something true; the failure says what it last answered."""

    def wait(probe: Callable[[], Any], *, seconds: float = 60, message: str = "") -> Any:
        deadline = time.monotonic() + seconds
        while True:
            answer = probe()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {message or probe}; last answer: {answer!r}")
            time.sleep(0.25)

    return wait
