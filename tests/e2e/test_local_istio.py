"""Real traffic through the ingress gateway of a cluster with Istio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn, Protocol

import pytest

NAME = "sft-istio"
UP_SECONDS = 1800

pytestmark = pytest.mark.timeout(UP_SECONDS)


class Unavailable(Protocol):
    def __call__(self, what: str, how: str) -> NoReturn: ...


def local(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", NAME],
        env={**os.environ, "SUPPORTFLEET_FAST": "1"},
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mesh(unavailable: Unavailable) -> Iterator[dict[str, Any]]:
    if os.geteuid() != 0:
        unavailable("root", "the embedded cluster makes network namespaces: run as root")
    local("up", "--provider", "embedded", "--istio", "--yes")
    yield json.loads(local("status", "-o", "json"))
    local("down")


def kubectl(mesh: dict[str, Any], *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [mesh["kubectl"], "--kubeconfig", mesh["kubeconfig"], *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def server(version: str) -> list[dict[str, Any]]:
    """A web server that says its version, and its Service."""
    labels = {"app": version}
    serve = f"mkdir /tmp/web && echo {version} > /tmp/web/index.html && python3 -m http.server -d /tmp/web 8080"
    container = {
        "name": "web",
        "image": "docker.io/supportfleet/base:dev",
        "command": ["sh", "-c", serve],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": version},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": version},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        },
    ]


def route(gateway: str) -> dict[str, Any]:
    """One request in ten to the canary, and beta testers always."""
    to = {version: {"destination": {"host": version, "port": {"number": 80}}} for version in ("stable", "canary")}
    testers = {"match": [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}], "route": [to["canary"]]}
    everyone = {"route": [{**to["stable"], "weight": 90}, {**to["canary"], "weight": 10}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "split"},
        "spec": {"hosts": ["*"], "gateways": [gateway], "http": [testers, everyone]},
    }


def ask(url: str, agent: str = "customer") -> str:
    request = urllib.request.Request(url, headers={"User-Agent": agent})  # noqa: S310 - http, to the cluster
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
            said: str = answer.read().decode().strip()
            return said
    except (urllib.error.URLError, TimeoutError) as error:
        return str(error)


def test_traffic_is_split_by_weight_and_header(mesh: dict[str, Any]) -> None:
    """Of 300 requests about a tenth reach the canary, and of those with the header all."""
    url = mesh["ingress"]["endpoint"]
    items = [*server("stable"), *server("canary"), route(mesh["ingress"]["gateway"])]
    kubectl(mesh, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    for version in ("stable", "canary"):
        kubectl(mesh, "rollout", "status", f"deployment/{version}", "--timeout=90s")
    deadline = time.monotonic() + 60
    while ask(url, "a beta-tester") != "canary" or ask(url) not in ("stable", "canary"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    said = Counter(ask(url) for _ in range(300))
    assert set(said) == {"stable", "canary"}
    assert 9 <= said["canary"] <= 60  # 30 are expected; four deviations to either side are 9 and 51
    assert Counter(ask(url, "a beta-tester") for _ in range(20)) == {"canary": 20}
