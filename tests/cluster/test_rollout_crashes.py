"""An operator that is killed with -9 wherever a rollout takes a step, and each time replaced by another.

Two things are watched: the states that are written, at which it is killed before it can act on what it wrote, and the
routes, at which it is killed before it can say what it did. What the routes said from the first to the last moment must
be what they say when nobody kills anything.
"""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ALONE, Desk, ROLLOUT = HELPER["ALONE"], HELPER["Desk"], HELPER["ROLLOUT"]
figures, shares_of, watching, walk = (HELPER[name] for name in ("figures", "shares_of", "watching", "walk"))
STEPS = [{"setWeight": 20}, {"setWeight": 50}, {"pause": {"durationSeconds": 1}}, {"setWeight": 80}]
PATIENT = {**ROLLOUT, "steps": STEPS, "progressDeadlineSeconds": 120}
LONGEST_WALK = 240.0

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("database", "istio")]


class Walk:
    """A rollout from the spec's change to its end, with an operator that is killed at every version of something."""

    def __init__(self, desk: Any, operators: Any, killed_at: str) -> None:
        self.desk, self.operators, self.killed_at = desk, operators, killed_at
        self.operator = operators.start(*ALONE)
        self.kills = 0
        self.armed = False

    def kill(self) -> None:
        """End the operator as it is, in the middle of whatever it does."""
        if self.armed and self.operator.process.poll() is None:
            self.operator.process.kill()
            self.kills += 1

    def through(self, change: Callable[[], None], is_over: Callable[[dict[str, Any]], bool]) -> tuple[Any, Any]:
        """What was written of the rollout, and what the routes said, until it is over."""
        place, name = self.desk.place, self.desk.name
        told = {plural: self.kill if plural == self.killed_at else lambda: None for plural in PICKS}
        with ExitStack() as stack:
            seen = {
                plural: stack.enter_context(watching(place, plural, name, pick, told[plural]))
                for plural, pick in PICKS.items()
            }
            self.armed = True
            change()
            deadline = time.monotonic() + LONGEST_WALK
            while not (seen["supportagents"] and is_over(self.desk.state)):
                assert time.monotonic() < deadline, seen
                if self.operator.process.poll() is not None:
                    self.operator.process.wait(10)
                    self.operator = self.operators.start(*ALONE)
                time.sleep(0.05)
            self.armed = False
        if self.operator.process.poll() is None:  # the last one may have no more than begun
            self.operator.stop()
        return seen["supportagents"], seen["virtualservices"]


PICKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "supportagents": lambda found: found.get("status", {}).get("rollout"),
    "virtualservices": shares_of,
}


def is_idle(state: dict[str, Any]) -> bool:
    return state.get("phase") == "Idle" and not state.get("retiring")


def named(shares: list[dict[str, int]], first: str) -> list[int]:
    """Stable's share, in order, each once in a row."""
    found = [one.get(first, 0) for one in shares]
    return [share for number, share in enumerate(found) if number == 0 or share != found[number - 1]]


@pytest.fixture
def desk(
    request: pytest.FixtureRequest, place: Any, kubelet: Any, operators: Any, eventually: Callable[..., Any]
) -> Iterator[Any]:
    """An agent that serves, with no operator beside it any more."""
    one = Desk(place, eventually, "c" + format(abs(hash(request.node.name)) % 10**8, "d"), rollout=PATIENT)
    yield one
    place.delete("supportagents", one.name)


@pytest.mark.parametrize("killed_at", ["nothing", "supportagents", "virtualservices"])
class TestKilledAtEachStep:
    def test_a_promotion(self, desk: Any, operators: Any, killed_at: str) -> None:
        """Each weight comes once and in order, and so does each step."""
        one = Walk(desk, operators, killed_at)
        first = desk.started()
        states, shares = one.through(
            lambda: desk.apply("agent:2"), lambda state: is_idle(state) and state["stableRevision"] != first
        )
        assert named(shares, first) == [80, 50, 20, 0]
        assert [step for step, _ in steps(states)] == [0, 1, 2, 3, 4]
        assert all(weight == WEIGHTS[step] for step, weight in steps(states))
        assert one.kills == 0 if killed_at == "nothing" else one.kills >= len(STEPS)

    def test_a_rollback(self, desk: Any, operators: Any, kubelet: Any, killed_at: str) -> None:
        """Stable loses a share once, gets it back once, and the canary never gets another."""
        with figures() as (port, served):
            kubelet.addresses |= {"agent:7": "127.0.0.7", "agent:8": "127.0.0.8"}
            metrics = [{"name": "errorRate", "max": 0.05}]
            analysis = {"intervalSeconds": 1, "minSamples": 20, "failureLimit": 2, "metrics": metrics}
            desk.spec["rollout"] = {**PATIENT, "analysis": analysis}
            desk.port = port
            one = Walk(desk, operators, killed_at)
            first = desk.started("agent:7")
            served.rate = (50.0, 50.0)
            states, shares = one.through(
                lambda: desk.apply("agent:8"),
                lambda state: state.get("phase") == "RolledBack" and desk.shares == {first: 100},
            )
        assert named(shares, first) == [80, 100]
        assert [state[0] for state in walk(states)][-2:] == ["Aborting", "RolledBack"]
        assert {step for step, _ in steps(states)} == {0, 1}
        assert desk.state["analysisFailures"] == 2
        assert one.kills == 0 if killed_at == "nothing" else one.kills >= 2


WEIGHTS = {0: 0, 1: 20, 2: 50, 3: 50, 4: 80}
"""What a canary has in each step until its promotion begins."""


def steps(states: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Steps and their weights as they were entered, until the last of the traffic moves."""
    return list(
        dict.fromkeys(
            (state["currentStep"], state["currentWeight"])
            for state in states
            if state.get("canaryRevision") and state["currentWeight"] < 100
        )
    )
