"""Rollouts on real pods, with customers who go on writing: not one request may fail."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

EXAMPLE = "01-customer-support-agent.yaml"
NAME = "customer-support-agent"
CANARY = {
    "strategy": "Canary",
    "steps": [{"setWeight": 50}, {"pause": {"durationSeconds": 5}}],
    "scaleDownDelaySeconds": 10,
}

pytestmark = pytest.mark.timeout(480)


def small(agent: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """The agent with few pods and small requests."""
    agent = copy.deepcopy(agent)
    agent["spec"]["template"]["resources"] = {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    agent["spec"].pop("autoscaling", None)
    agent["spec"] |= {"replicas": 2, "rollout": CANARY, "traffic": {"provider": "None"}, **spec}
    return agent


@pytest.fixture
def customers(talk: Any) -> Callable[[], Any]:
    """Customers who send one message after the other through the agent's Service; gives what they were answered."""

    @contextmanager
    def writing() -> Iterator[list[int]]:
        answers: list[int] = []
        stop = threading.Event()

        def write(number: int) -> None:
            while not stop.is_set():
                body = {"customer_id": f"cust-{number}", "text": "Where is my order A-1001?"}
                try:
                    answers.append(talk("/v1/messages", body, service=NAME).status)
                except OSError:
                    answers.append(0)  # no answer at all
                stop.wait(0.1)

        threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in threads:
                thread.join(45)

    return writing


class Rollout:
    """The agent, as kubectl shows it."""

    def __init__(self, operator: Any, namespace: str, until: Any) -> None:
        self.operator, self.namespace, self.until = operator, namespace, until

    def apply(self, agent: dict[str, Any]) -> None:
        self.operator.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(agent))

    @property
    def agent(self) -> dict[str, Any]:
        found: dict[str, Any] = self.operator.get("-n", self.namespace, "supportagent", NAME)
        return found

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.agent.get("status", {}).get("rollout") or {}
        return found

    def pods(self, revision: str) -> dict[str, tuple[Any, ...]]:
        """Who a revision's pods are, and which lives their containers are in."""
        label = f"supportfleet.dev/revision={revision}"
        found = self.operator.get("-n", self.namespace, "pods", "-l", label)["items"]
        lives = lambda pod: [one["restartCount"] for one in pod["status"].get("containerStatuses", [])]  # noqa: E731
        return {pod["metadata"]["name"]: (pod["metadata"]["uid"], *lives(pod)) for pod in found}

    def is_ready(self) -> bool:
        agent = self.agent
        ready = [one for one in agent.get("status", {}).get("conditions", []) if one["type"] == "Ready"]
        return bool(
            ready
            and ready[0]["status"] == "True"
            and ready[0].get("observedGeneration") == agent["metadata"]["generation"]
        )

    def condition(self, kind: str) -> dict[str, Any]:
        conditions = self.agent.get("status", {}).get("conditions", [])
        found: dict[str, Any] = next((one for one in conditions if one["type"] == kind), {})
        return found

    def reason(self) -> str:
        return str(self.condition("Ready").get("reason", ""))

    def checklists(self) -> list[dict[str, Any]]:
        """The Jobs that make or made the checks."""
        label = "app.kubernetes.io/component=checklist"
        return list(self.operator.get("-n", self.namespace, "jobs", "-l", label)["items"])

    def has_passed(self, revision: str) -> bool:
        """Whether a revision's checks were made and passed; their Job is gone by then, its events are not."""
        fields = "involvedObject.kind=Job,reason=Completed"
        found = self.operator.get("-n", self.namespace, "events", "--field-selector", fields)["items"]
        return any(one["involvedObject"]["name"].startswith(f"{NAME}-{revision}-check-") for one in found)

    def ready(self, seconds: float = 180) -> str:
        try:
            self.until(self.is_ready, seconds=seconds, message=f"{NAME} is ready")
        except AssertionError as error:
            error.add_note(json.dumps(self.agent.get("status"), indent=1))
            raise
        return str(self.state["stableRevision"])


@pytest.fixture
def rollout(operator: Any, namespace: str, until: Any) -> Rollout:
    """The agent of the test."""
    return Rollout(operator, namespace, until)


def test_a_canary_takes_over_without_a_failed_request(
    rollout: Rollout,
    example: Callable[[str], dict[str, Any]],
    customers: Callable[[], Any],
    reached: Callable[[str], None],
) -> None:
    """Through pods that come, shares that move and pods that go, every customer is answered.

    The promotion makes the pods that were the canary's those of stable: none is made anew or restarted for it.
    """
    rollout.apply(small(example(EXAMPLE)))
    first = rollout.ready()
    reached(NAME)
    with customers() as answers:
        rollout.apply(small(example(EXAMPLE), config={"greeting": "Good day"}))
        state = rollout.until(
            lambda: (state := rollout.state).get("currentWeight") == 50 and state,
            seconds=90,
            message="the canary has its half",
        )
        tried = rollout.pods(state["canaryRevision"])
        rollout.until(
            lambda: rollout.state.get("stableRevision") not in (None, first), seconds=120, message="promotion"
        )
        second = rollout.ready()
        time.sleep(20)  # the pods of before go, with requests under way
    assert second != first
    assert tried
    assert tried.items() <= rollout.pods(second).items()
    assert len(answers) > 50
    assert set(answers) == {200}


def test_a_bad_revision_never_gets_a_customer(
    rollout: Rollout,
    example: Callable[[str], dict[str, Any]],
    customers: Callable[[], Any],
    reached: Callable[[str], None],
) -> None:
    """An image that does not exist is rolled back at its deadline while stable answers everybody."""
    limits = {**CANARY, "progressDeadlineSeconds": 15}
    agent = small(example(EXAMPLE), rollout=limits)
    rollout.apply(agent)
    first = rollout.ready()
    reached(NAME)
    with customers() as answers:
        broken = copy.deepcopy(agent)
        broken["spec"]["template"]["image"] = "supportfleet/agent:no-such-tag"
        rollout.apply(broken)
        rollout.until(lambda: rollout.reason() == "RolledBack", seconds=90, message="it is rolled back")
        assert rollout.state["stableRevision"] == first
        rollout.apply(agent)
        assert rollout.ready(60) == first
    assert answers
    assert set(answers) == {200}


def test_a_checklist_comes_before_the_first_customer(
    rollout: Rollout,
    example: Callable[[str], dict[str, Any]],
    customers: Callable[[], Any],
    reached: Callable[[str], None],
) -> None:
    """Made in a pod, the checks let a sound revision through, and no customer to one whose key is a weak one."""
    checks = {"skip": ["authentication"]}  # customers send no key here
    agent = small(example(EXAMPLE), rollout={**CANARY, "checklist": checks, "progressDeadlineSeconds": 150})
    rollout.apply(agent)
    first = rollout.ready()
    rollout.until(lambda: rollout.has_passed(first), seconds=30, message="its checks were made, in a pod")
    reached(NAME)
    with customers() as answers:
        unsound = copy.deepcopy(agent)
        unsound["spec"]["template"]["env"] = [{"name": "API_KEYS", "value": "changeme-changeme-changeme-1"}]
        rollout.apply(unsound)
        rollout.until(lambda: rollout.reason() == "RolledBack", seconds=180, message="it is rolled back")
        assert "secrets FAIL: API_KEYS" in rollout.condition("Ready")["message"]
        assert rollout.state["stableRevision"] == first
        (job,) = rollout.checklists()
        assert job["status"]["failed"] == 1
        assert job["metadata"]["labels"]["supportfleet.dev/revision"] == rollout.state["failedRevision"]
    assert answers
    assert set(answers) == {200}
