"""An agent in layers on a cluster with nodes and PostgreSQL: gateways, workers and tools in pods of their own."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = "09-layered.yaml"
NAME = "layered-agent"
AGENT = runpy.run_path(str(Path(__file__).parent / "test_agent.py"))
apply, wait_ready, serving = (AGENT[name] for name in ("apply", "wait_ready", "serving"))
QUESTION = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
MESSAGES = 40
SMALL = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}

pytestmark = pytest.mark.timeout(420)


def pods(operator: Any, namespace: str, component: str) -> list[str]:
    """Pods of a layer that are not on their way out."""
    found = operator.get("-n", namespace, "pods", "-l", f"app.kubernetes.io/component={component}")["items"]
    return [one["metadata"]["name"] for one in found if not one["metadata"].get("deletionTimestamp")]


def test_messages_get_through_the_layers_and_a_killed_worker_costs_none(
    operator: Any,
    namespace: str,
    example: Callable[[str], dict[str, Any]],
    talk: Any,
    until: Any,
    reached: Callable[[str], None],
) -> None:
    """A gateway's messages are answered by workers that reach their tools, also while one of two workers is killed."""
    agent = example(EXAMPLE)
    spec = agent["spec"]
    spec["template"]["resources"] = spec["worker"]["resources"] = SMALL
    del spec["autoscaling"], spec["worker"]["autoscaling"]
    spec["tools"]["replicas"] = 1
    operator.kubectl(
        "-n", namespace, "create", "secret", "generic", f"{NAME}-tools", "--from-literal=TOOLS_API_KEY=0123456789abcdef"
    )
    apply(operator, agent)
    wait_ready(operator, namespace, NAME)
    reached(NAME)
    status = operator.get("-n", namespace, "supportagent", NAME)["status"]
    assert status["layers"] == [
        {"name": "worker", "replicas": 2, "readyReplicas": 2},
        {"name": "tools", "replicas": 1, "readyReplicas": 1},
    ]
    workers = pods(operator, namespace, "worker")
    assert serving(operator, namespace, NAME) + "-worker" in workers[0]

    def tools_answer() -> bool:
        health = talk("/v1/health", pod=workers[0]).body
        return bool(health["components"]["tools"]["status"] == "healthy")

    until(tools_answer, message="a worker reaches its tools")

    answers: list[Any] = []

    def ask() -> None:
        answers.extend(talk("/v1/messages", QUESTION, service=NAME) for _ in range(MESSAGES // 4))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) >= 4, message="messages are being answered")
    operator.kubectl("-n", namespace, "delete", "pod", workers[0], "--grace-period=0", "--force")
    for thread in threads:
        thread.join(timeout=180)
    assert len(answers) == MESSAGES
    assert {answer.status for answer in answers} <= {200, 202}, [answer.raw for answer in answers]

    def done(answer: Any) -> bool:
        task = answer.body["task_id"]
        said = talk(f"/v1/tasks/{task}?customer_id=cust-1001", service=NAME)
        return bool(said.status == 200 and said.body["status"] == "done")

    for answer in answers:
        until(lambda one=answer: done(one), seconds=90, message=json.dumps(answer.body))
    until(lambda: len(pods(operator, namespace, "worker")) == 2, message="the worker is replaced")
