"""How long from ``kubectl apply`` to Ready, and what the operator costs at rest; needs the demo's cluster (make demo).

Baseline, in the same run and interleaved: the same Deployment applied by hand and waited for, so that the ratio is what
the operator adds (rendering, the model sync Job, status) to what pods need anyway. Figures vary from machine to
machine; ratios less.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any

import yaml

from supportfleet.demo import CHECKOUT, EXAMPLE, cluster_info
from supportfleet.kubectl import Kubectl

NAMESPACE = "benchmark"
SYSTEM = "supportfleet-system"
READY = 120


def example() -> dict[str, Any]:
    """The seed case with one small pod, so that only the operator's part differs."""
    agent: dict[str, Any] = next(
        one for one in yaml.safe_load_all((CHECKOUT / EXAMPLE).read_text()) if one["kind"] == "SupportAgent"
    )
    agent["metadata"] = {"name": "bench", "namespace": NAMESPACE}
    agent["spec"].pop("autoscaling", None)
    agent["spec"]["replicas"] = 1
    agent["spec"]["template"]["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    return agent


def by_operator(kubectl: Kubectl) -> tuple[float, float]:
    """Seconds to Ready through the operator, and of those the pod's own start."""
    started = time.time()
    kubectl.run("apply", "-f", "-", stdin=json.dumps(example()))
    wait = ("wait", "supportagent/bench", "--for=condition=Ready", f"--timeout={READY}s")
    kubectl.run("-n", NAMESPACE, *wait, timeout=READY + 10)
    total = time.time() - started
    pods = kubectl.get("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
    return total, max(pod_start(pod) for pod in pods)


def pod_start(pod: dict[str, Any]) -> float:
    """Seconds from a pod's creation to its readiness; the API has whole seconds."""
    parse = "%Y-%m-%dT%H:%M:%SZ"
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    ended = time.mktime(time.strptime(ready["lastTransitionTime"], parse))
    return ended - time.mktime(time.strptime(pod["metadata"]["creationTimestamp"], parse))


def by_hand(kubectl: Kubectl, children: list[dict[str, Any]]) -> float:
    """Seconds to available when the rendered Deployment is applied as plain YAML."""
    started = time.time()
    kubectl.run("apply", "-f", "-", stdin=yaml.safe_dump_all(children))
    kubectl.run(
        "-n", NAMESPACE, "rollout", "status", "deployment/bench-hand", f"--timeout={READY}s", timeout=READY + 10
    )
    return time.time() - started


def plain(kubectl: Kubectl) -> list[dict[str, Any]]:
    """What the operator made, as somebody would keep it in Git: no owner, no status, another name."""
    found = []
    status = kubectl.get("-n", NAMESPACE, "supportagent", "bench")["status"]
    revision = f"bench-{status['rollout']['stableRevision']}"
    for kind, name in (("deployment", revision), ("configmap", f"{revision}-config"), ("serviceaccount", "bench")):
        live = kubectl.get("-n", NAMESPACE, kind, name)
        live.pop("status", None)
        live["metadata"] = {"name": live["metadata"]["name"], "namespace": NAMESPACE}
        if kind == "deployment":
            live["metadata"]["name"] = "bench-hand"
            for labels in (live["spec"]["selector"]["matchLabels"], live["spec"]["template"]["metadata"]["labels"]):
                labels.clear()
                labels["app"] = "bench-hand"
        found.append(live)
    return found


def remove(kubectl: Kubectl, *what: str) -> None:
    """Delete and wait for the pods to be gone."""
    kubectl.run("-n", NAMESPACE, "delete", *what, "--ignore-not-found", timeout=READY)
    kubectl.run("-n", NAMESPACE, "wait", "--for=delete", "pods", "--all", f"--timeout={READY}s", timeout=READY + 10)


def at_rest(kubectl: Kubectl, seconds: float) -> None:
    """Print each operator pod's memory and processor share while nothing changes."""
    pods = kubectl.get("-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=supportfleet-operator")["items"]
    names = [pod["metadata"]["name"] for pod in pods]
    before = {name: figures(kubectl, name) for name in names}
    time.sleep(seconds)
    for name in names:
        after = figures(kubectl, name)
        share = (after["process_cpu_seconds_total"] - before[name]["process_cpu_seconds_total"]) / seconds
        memory = after["process_resident_memory_bytes"] / 1e6
        print(f"operator at rest  {name}  {memory:.0f} MB resident  {share:.2%} of a core over {seconds:.0f} s")


def figures(kubectl: Kubectl, pod: str) -> dict[str, float]:
    """The process figures of a pod's own metrics."""
    text = kubectl.run("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics")
    found = re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", default="supportfleet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rest", type=float, default=60.0, help="seconds to watch the operator at rest")
    args = parser.parse_args()
    info = cluster_info(args.cluster)
    kubectl = Kubectl(Path(info["kubeconfig"]), Path(info["kubectl"]))
    print(
        f"machine: {os.cpu_count()} cores, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    )
    at_rest(kubectl, args.rest)
    kubectl.run("create", "namespace", NAMESPACE)
    try:
        for secret in ("s3-credentials", "postgres-credentials"):
            data = kubectl.get("-n", "supportfleet-local", "secret", secret)["data"]
            copy = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret, "namespace": NAMESPACE}}
            kubectl.run("apply", "-f", "-", stdin=json.dumps({**copy, "data": data}))
        rounds(kubectl, args.rounds)
    finally:
        kubectl.run("delete", "namespace", NAMESPACE, timeout=READY)


def rounds(kubectl: Kubectl, count: int) -> None:
    """Interleave the operator's way and the way by hand."""
    beyond, hand, whole = [], [], []
    for _ in range(count):
        total, pods = by_operator(kubectl)
        children = plain(kubectl)
        remove(kubectl, "supportagent/bench")
        by = by_hand(kubectl, children)
        remove(kubectl, *(f"{child['kind'].lower()}/{child['metadata']['name']}" for child in children))
        print(f"apply to Ready {total:.1f} s, of which the pod's own start {pods:.0f} s; by hand {by:.1f} s")
        beyond.append(total - pods)
        hand.append(by)
        whole.append(total)
    median = statistics.median
    print(f"median: {median(whole):.1f} s to Ready, {median(beyond):.1f} s beyond the pod's own start,")
    print(f"        {median(whole) / median(hand):.2f} times the same objects applied by hand")


if __name__ == "__main__":
    main()
