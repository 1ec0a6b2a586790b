"""What kstatus says of an agent in every state that a rollout passes: Flux, kapp and others wait by it.

The library itself judges (local_cluster/kstatus), and not samples: every version of the agent that the API server ever
showed in a test.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import runpy
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supportfleet.local import binaries
from supportfleet.local.progress import Progress

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
figures, watching = HELPER["figures"], HELPER["watching"]
ANALYSIS = {"intervalSeconds": 1, "minSamples": 20, "metrics": [{"name": "errorRate", "max": 0.05}]}
IN_PROGRESS, CURRENT, FAILED = "InProgress", "Current", "Failed"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/supportagents.supportfleet.dev"
LOWEST_PORT = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/template/properties/port/minimum"

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database", "istio")]


@pytest.fixture(scope="module")
def kstatus() -> Callable[..., list[str]]:
    """The library's verdict on each of some objects."""
    with Progress() as progress:
        program = asyncio.run(binaries.ensure(["kstatus"], progress=progress))["kstatus"]

    def judge(*objects: dict[str, Any]) -> list[str]:
        lines = "".join(json.dumps(one) + "\n" for one in objects)
        done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=30, check=True)
        return [json.loads(line)["status"] for line in done.stdout.splitlines()]

    return judge


class Story:
    """The versions of an agent, and what kstatus made of them."""

    def __init__(self, judge: Callable[..., list[str]]) -> None:
        self.judge = judge
        self.versions: list[dict[str, Any]] = []

    @property
    def verdicts(self) -> list[str]:
        """The verdicts in order, each once in a row."""
        return [verdict for verdict, _ in itertools.groupby(self.judge(*self.versions))]

    def phases(self, verdict: str) -> set[str]:
        """The rollout's phases that got this verdict."""
        judged = zip(self.versions, self.judge(*self.versions), strict=True)
        found = (version.get("status", {}).get("rollout", {}) for version, said in judged if said == verdict)
        return {str(state["phase"]) for state in found if state.get("phase")}


@pytest.fixture
def told(place: Any, desk: Any, kstatus: Callable[..., list[str]]) -> Callable[[], Any]:
    """Follow the agent for a while; whatever is seen then, an unobserved generation is in progress."""

    @contextmanager
    def following() -> Iterator[Story]:
        story = Story(kstatus)
        with watching(place, "supportagents", desk.name) as story.versions:
            yield story
        unobserved = [version for version in story.versions if observed(version) != version["metadata"]["generation"]]
        assert set(kstatus(*unobserved)) <= {IN_PROGRESS}
        newer = copy.deepcopy(story.versions)
        for version in newer:
            version["metadata"]["generation"] += 1
        assert set(kstatus(*newer)) == {IN_PROGRESS}

    return following


def observed(version: dict[str, Any]) -> Any:
    return version.get("status", {}).get("observedGeneration")


class TestStarting:
    def test_a_new_agent(self, desk: Any, kubelet: Any, place: Any, told: Callable[[], Any]) -> None:
        """From the first moment, before the operator has seen it, until its pods are ready it is in progress."""
        with told() as story:
            with kubelet.told(agents_run=False):
                desk.apply("agent:1")
                desk.eventually(lambda: desk.state.get("phase") == "Starting", "it starts")
            desk.eventually(lambda: place.is_ready(desk.name), "it serves", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]

    def test_before_the_operator_looks(self, desk: Any, operator: Any, kstatus: Any, place: Any) -> None:
        """A change that no operator has seen is in progress, however ready the agent was."""
        desk.started()
        assert kstatus(place.get("supportagents", desk.name)) == [CURRENT]
        operator.process.send_signal(signal.SIGSTOP)
        try:
            desk.apply("agent:2")
            assert kstatus(place.get("supportagents", desk.name)) == [IN_PROGRESS]
        finally:
            operator.process.send_signal(signal.SIGCONT)
        desk.at_pause()

    def test_a_missing_secret(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """It has failed until somebody makes the Secret; then it goes on by itself."""
        desk.spec["database"] = {"secretRef": {"name": f"{desk.name}-later"}}
        with told() as story:
            desk.apply("agent:1")
            desk.eventually(lambda: place.reason(desk.name) == "MissingReference", "the Secret is missed")
            place.secret(f"{desk.name}-later", DATABASE_URL="postgresql://u:p@h/d")
            desk.eventually(lambda: place.is_ready(desk.name), "it serves", 40)
        assert story.verdicts in (
            [IN_PROGRESS, FAILED, CURRENT],  # its pods wait for the Secret and need nobody to start
            [IN_PROGRESS, FAILED, IN_PROGRESS, CURRENT],
        )

    def test_a_spec_that_is_not_valid(self, desk: Any, place: Any, kstatus: Any, told: Callable[[], Any]) -> None:
        """What was stored before a rule existed has failed until it is changed."""
        desk.port = 80
        with without_rule(place, LOWEST_PORT, desk.manifest("agent:1")):
            desk.apply("agent:1")
        desk.eventually(lambda: place.reason(desk.name) == "InvalidSpec", "it is refused")
        assert kstatus(place.get("supportagents", desk.name)) == [FAILED]
        desk.port = None
        with told() as story:
            desk.apply("agent:1")
            desk.eventually(lambda: place.is_ready(desk.name), "it serves", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]

    def test_suspended(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """A suspended agent is not Ready, which kstatus takes for progress, until it serves again."""
        desk.started()
        with told() as story:
            place.patch("supportagents", desk.name, {"spec": {"suspend": True}})
            desk.eventually(lambda: desk.pods(desk.state["stableRevision"]) == 0, "its pods go")
            desk.eventually(lambda: place.reason(desk.name) == "Suspended", "it says so")
            place.patch("supportagents", desk.name, {"spec": {"suspend": False}})
            desk.eventually(lambda: place.is_ready(desk.name), "it is back", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]


class TestCanary:
    def test_until_it_is_promoted(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """Starting, stepping, paused and promoting are progress; it is current once the new revision is stable."""
        desk.started()
        with told() as story:
            desk.apply("agent:2")
            second = desk.at_pause()
            desk.ask("resume", second)
            desk.eventually(lambda: place.is_ready(desk.name), "the canary is promoted", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]
        assert story.phases(IN_PROGRESS) >= {"Starting", "Stepping", "Paused", "Promoting"}
        assert story.phases(CURRENT) == {"Idle"}

    def test_held_by_the_spec(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """A new revision that spec.rollout.paused holds back is not there yet."""
        desk.started()
        with told() as story:
            desk.spec["rollout"] = {**HELPER["ROLLOUT"], "paused": True}
            desk.apply("agent:2")
            desk.eventually(lambda: desk.state.get("reason") == "PausedBySpec", "it is held")
            time.sleep(0.5)
        assert story.verdicts == [IN_PROGRESS]

    def test_waiting_for_an_analysis(self, desk: Any, kubelet: Any, place: Any, told: Callable[[], Any]) -> None:
        """While too few requests were measured it is in progress, and after enough good ones current."""
        with measured(desk, kubelet, 1, 2) as served:
            served.rate = (0.0, 0.0)
            with told() as story:
                desk.apply("agent:2")
                desk.eventually(lambda: desk.state.get("currentStep") == 1, "it waits for figures", 40)
                time.sleep(1.5)
                served.rate = (50.0, 0.0)
                desk.eventually(lambda: place.is_ready(desk.name), "the canary is promoted", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]

    def test_back_to_the_old_spec(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """Going back mid-canary is progress until stable has all again."""
        desk.started()
        desk.apply("agent:2")
        desk.at_pause()
        with told() as story:
            desk.apply("agent:1")
            desk.eventually(lambda: place.is_ready(desk.name), "as the spec says", 40)
        assert story.verdicts == [IN_PROGRESS, CURRENT]


class TestRolledBack:
    def test_by_bad_figures_and_retried(self, desk: Any, kubelet: Any, place: Any, told: Callable[[], Any]) -> None:
        """A revision that was rolled back has failed, stays so when it is applied again, and can be retried."""
        with measured(desk, kubelet, 7, 8) as served:
            with told() as story:
                desk.apply("agent:8")
                desk.eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 40)
                desk.eventually(lambda: desk.state["phase"] == "RolledBack", "its pods go")
                desk.eventually(lambda: place.condition(desk.name, "Stalled"), "it says so")
                desk.apply("agent:8")
                time.sleep(1)
            assert story.verdicts == [IN_PROGRESS, FAILED]
            with told() as story:
                served.healed = True
                desk.ask("retry", desk.state["failedRevision"])
                desk.eventually(lambda: place.is_ready(desk.name), "the second try is promoted", 40)
            assert story.verdicts == [FAILED, IN_PROGRESS, CURRENT]

    def test_never_ready(self, desk: Any, kubelet: Any, place: Any, told: Callable[[], Any]) -> None:
        """Pods that are not ready before the deadline are progress, and a failure after it; a fix is progress again."""
        desk.started()
        desk.spec["rollout"] = {**HELPER["ROLLOUT"], "progressDeadlineSeconds": 3}
        with told() as story, kubelet.told(broken_images=("agent:2",)):
            desk.apply("agent:2")
            desk.eventually(lambda: place.condition(desk.name, "Stalled"), "it is rolled back", 30)
            desk.apply("agent:1")
            desk.eventually(lambda: place.is_ready(desk.name), "as before")
        assert story.verdicts == [IN_PROGRESS, FAILED, IN_PROGRESS, CURRENT]

    def test_undone(self, desk: Any, place: Any, told: Callable[[], Any]) -> None:
        """After an undo the spec asks in vain for what was undone: failed, until the spec changes."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        desk.ask("promote", second)
        desk.eventually(lambda: place.is_ready(desk.name), "it is promoted", 40)
        with told() as story:
            desk.ask("undo", second)
            desk.eventually(lambda: desk.is_stable(first), "the first is back", 40)
            desk.eventually(lambda: place.reason(desk.name) == "Undone", "it says so")
            desk.apply("agent:1")
            desk.eventually(lambda: place.is_ready(desk.name), "as the spec says", 40)
        assert story.verdicts in (
            [CURRENT, IN_PROGRESS, FAILED, IN_PROGRESS, CURRENT],  # the annotation is no change of the spec
            [IN_PROGRESS, FAILED, IN_PROGRESS, CURRENT],
        )


@contextmanager
def without_rule(place: Any, path: str, breach: dict[str, Any]) -> Iterator[None]:
    """A definition that lacks a rule for a while, as an older one did; ``breach`` is an agent that breaks it."""
    content = "application/json-patch+json"
    there = place.api.request("GET", CRD)
    for part in path.strip("/").split("/"):
        there = there[int(part) if part.isdecimal() else part]
    place.api.request("PATCH", CRD, [{"op": "remove", "path": path}], content)
    try:
        _until_served(lambda: _is_accepted(place, breach))
        yield
    finally:
        place.api.request("PATCH", CRD, [{"op": "add", "path": path, "value": there}], content)
        _until_served(lambda: not _is_accepted(place, breach))


def _until_served(condition: Callable[[], bool]) -> None:
    """Wait until what serves the kind has the other definition, and watches have begun again."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the definition is not served"
        time.sleep(0.1)
    time.sleep(2)


def _is_accepted(place: Any, agent: dict[str, Any]) -> bool:
    """Whether the API server would take an agent."""
    trial = json.dumps({**agent, "metadata": {"name": "trial"}})
    done = place.kubectl("create", "--dry-run=server", "--validate=false", "-f", "-", stdin=trial, check=False)
    assert done.returncode == 0 or "is invalid" in done.stderr, done.stderr
    return bool(done.returncode == 0)


@contextmanager
def measured(desk: Any, kubelet: Any, stable: int, canary: int) -> Iterator[Any]:
    """The agent serves with ``agent:<stable>``; figures are served for both, those of address .8 bad ones."""
    with figures() as (port, served):
        for number in (stable, canary):
            kubelet.addresses |= {f"agent:{number}": f"127.0.0.{number}"}
        steps = [{"setWeight": 20}, {"analysis": {}}, {"setWeight": 50}]
        desk.spec["rollout"] = {**HELPER["ROLLOUT"], "steps": steps, "analysis": ANALYSIS}
        desk.port = port
        desk.started(f"agent:{stable}")
        served.rate = (50.0, 50.0)
        yield served
