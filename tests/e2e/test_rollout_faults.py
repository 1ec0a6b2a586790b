"""Spot nodes that vanish and a bucket that nobody reaches, in the middle of a canary: what runs keeps running."""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
LOG = logging.getLogger("figures")
Load = runpy.run_path(str(HERE / "rollout_traffic.py"))["Load"]
EXAMPLE = "01-customer-support-agent.yaml"
NAME = "customer-support-agent"
HOST = "spot.example.com"
RATE = 20.0
SHARE_ANSWERED = 0.99
"""Until the cluster has given a node up, the gateway meets its pods now and then, and tries others a limited time."""
STEPS = [{"setWeight": 60}, {"pause": {}}]
DAEMONS = Path("/run/supportfleet")
CGROUPS = Path("/sys/fs/cgroup")

pytestmark = pytest.mark.timeout(900)


class Machine:
    """The machine that the cluster under test runs on."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.name = cluster, cluster.info["name"]
        self.up("--istio")
        self.ingress = json.loads(self.local("status", "-o", "json"))["ingress"]

    def local(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "supportfleet", "local", *arguments, "--name", self.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, env=self.cluster.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, *arguments: str) -> None:
        """Have everything run again."""
        self.local("up", "--provider", "embedded", "--yes", *arguments)

    def kill(self, prefix: str) -> None:
        """End the cluster's processes whose names begin like this, with no warning."""
        for record in (DAEMONS / self.name / "daemons").iterdir():
            if record.name.startswith(prefix):
                _kill(int(record.read_text().split()[0]))

    def reclaim(self, node: str) -> None:
        """Take a node away, with all that runs on it, as a cloud does with a spot machine."""
        label = node.removeprefix(f"{self.name}-")
        self.kill(f"{label}-")
        for procs in CGROUPS.glob(f"**/supportfleet-{self.name}/{label}/**/cgroup.procs"):
            for pid in procs.read_text().split():
                _kill(int(pid))
        self.cluster.kubectl("delete", "node", node, "--wait=false")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it went with another


@pytest.fixture(scope="module")
def machine(operator: Any, unavailable: Callable[[str, str], Any]) -> Iterator[Machine]:
    """The machine, with Istio in its cluster, and everything running again afterwards."""
    if not operator.info:
        unavailable("the cluster's machine", "run this test on a cluster of 'supportfleet local up'")
    machine = Machine(operator)
    yield machine
    machine.up()


def agent_of(example: dict[str, Any], machine: Machine, greeting: str) -> dict[str, Any]:
    """The example with few small pods, half of them on each node, behind the gateway."""
    spec = example["spec"]
    spec.pop("autoscaling")
    spec["replicas"] = 2
    spec["template"]["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    apart = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    spec["template"]["topologySpreadConstraints"] = [apart]
    spec["config"]["greeting"] = greeting
    spec["traffic"] = {"provider": "Istio", "hosts": [HOST], "gateways": [machine.ingress["gateway"]]}
    spec["rollout"] = {"strategy": "Canary", "steps": STEPS, "progressDeadlineSeconds": 600}
    return example


def test_what_runs_keeps_running(
    machine: Machine,
    example: Callable[[str], dict[str, Any]],
    namespace: str,
    until: Callable[..., Any],
) -> None:
    """Without the bucket and half of the nodes both revisions answer, the canary waits, and later it is promoted."""
    cluster = machine.cluster

    def apply(greeting: str) -> None:
        manifest = agent_of(example(EXAMPLE), machine, greeting)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(manifest))

    def state() -> dict[str, Any]:
        found = cluster.get("-n", namespace, "supportagent", NAME)
        return dict(found.get("status", {}).get("rollout") or {})

    def spread(revision: str) -> set[str]:
        """The nodes with ready pods of a revision."""
        found = cluster.get("-n", namespace, "pods", "-l", f"supportfleet.dev/revision={revision}")["items"]
        return {pod["spec"]["nodeName"] for pod in found if pod["spec"].get("nodeName") and _is_ready(pod)}

    load = Load(machine.ingress["endpoint"], HOST)
    apply("first")
    until(lambda: state().get("stableRevision"), seconds=240, message="the first revision serves")
    apply("second")
    until(lambda: state().get("phase") == "Paused", seconds=240, message="the canary has its share")
    first, second = state()["stableRevision"], state()["canaryRevision"]
    gateway = cluster.get("-n", "istio-system", "pods", "-l", "istio=ingressgateway")["items"][0]["spec"]["nodeName"]
    until(lambda: len(spread(first)) == len(spread(second)) == 2, message="both have a pod on each node")
    (victim,) = spread(first) - {gateway}
    assert spread(second) == {gateway, victim}
    machine.kill("s3")
    with load.steady(RATE):
        time.sleep(3)
        lost = time.monotonic()
        machine.reclaim(victim)
        time.sleep(60)
        told = state()
    failed = [(round(one.sent - lost, 2), one.status, one.error) for one in load.failed]
    LOG.info("%s of %s requests failed: %s", len(failed), len(load.answers), failed)
    late = load.since(lost + 5)
    answered = [one for one in late if one.status == 200]
    assert len(answered) >= SHARE_ANSWERED * len(late), failed
    assert {one.reply for one in answered} == {"first", "second"}
    assert (told["phase"], told["stableRevision"], told["canaryRevision"]) == ("Paused", first, second)
    machine.up()
    words = {"": "resume", "-revision": second, "-id": "on"}
    annotations = [f"supportfleet.dev/action{key}={word}" for key, word in words.items()]
    cluster.kubectl("-n", namespace, "annotate", "--overwrite", "supportagent", NAME, *annotations)
    until(lambda: state().get("stableRevision") == second, seconds=300, message="the canary is promoted")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
