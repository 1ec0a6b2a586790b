"""GitOps tools apply the same Git state over and over, each in its own way, at any moment of a rollout."""

from __future__ import annotations

import json
import math
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ROLLOUT, history, shares_of, watching = (HELPER[name] for name in ("ROLLOUT", "history", "shares_of", "watching"))
meanwhile = runpy.run_path(str(Path(__file__).parent.parent / "meanwhile.py"))["meanwhile"]
WAYS = {
    "kubectl apply": ("apply", "-f", "-"),
    "kubectl apply --server-side": ("apply", "--server-side", "--force-conflicts", "-f", "-"),
    "Argo CD with ServerSideApply": (
        *("apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller"),
        *("--validate=false", "-f", "-"),
    ),
    "Argo CD with Replace": ("replace", "-f", "-"),
}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database", "istio")]


@pytest.fixture(params=list(WAYS))
def git(request: pytest.FixtureRequest, place: Any, desk: Any) -> Callable[[str], None]:
    """Applies what Git has for an image, in one tool's way."""
    way = WAYS[request.param]

    def sync(image: str) -> None:
        there = place.get("supportagents", desk.name) is not None
        place.kubectl(*(way if there else WAYS["kubectl apply"]), stdin=json.dumps(desk.manifest(image)))

    return sync


@contextmanager
def in_a_loop(sync: Callable[[str], None], image: str) -> Iterator[list[float]]:
    """Apply the same again and again; gives when each time was."""
    times: list[float] = []
    errors: list[AssertionError] = []

    def loop(stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                sync(image)
                times.append(time.monotonic())
            except AssertionError as error:  # what kubectl said
                if "(Conflict)" not in str(error):  # of a replacement: the tool comes again
                    errors.append(error)
                    return
            stop.wait(0.1)

    with meanwhile(loop):
        yield times
    assert not errors


def test_a_whole_rollout_under_a_loop(desk: Any, git: Callable[[str], None], place: Any) -> None:
    """Weights and steps are those of a rollout that nobody applied anything to, and no pause is cut or begun anew."""
    began = time.monotonic()
    git("agent:1")
    pause = {"pause": {"durationSeconds": max(4, math.ceil(4 * (time.monotonic() - began)))}}  # for several rounds
    desk.spec["rollout"] = {**ROLLOUT, "steps": [{"setWeight": 20}, pause, {"setWeight": 50}, pause]}
    desk.eventually(lambda: place.is_ready(desk.name), "the first revision serves", 40)
    first = desk.state["stableRevision"]
    with (
        history(place, desk.name) as states,
        watching(place, "virtualservices", desk.name, shares_of) as shares,
        in_a_loop(git, "agent:2") as times,
    ):
        desk.eventually(lambda: desk.state["stableRevision"] != first, "the canary is promoted", 90)
    assert len(times) >= 5
    assert [one.get(first, 0) for one in shares if sum(one.values()) == 100][:3] == [80, 50, 0]
    entered = dict.fromkeys((one["currentStep"], one["stepStartedAt"]) for one in states if one.get("canaryRevision"))
    numbers = [step for step, _ in entered]
    assert numbers in ([0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4])  # the first may begin again when its pods are there


def test_a_canary_at_rest(desk: Any, git: Callable[[str], None], place: Any, audit: Any) -> None:
    """While a canary waits for a person, applying the same makes the operator write nothing at all."""
    git("agent:1")
    desk.eventually(lambda: place.is_ready(desk.name), "the first revision serves", 40)
    git("agent:2")
    second = desk.at_pause()
    desk.ask("pause", second)
    desk.eventually(lambda: desk.state.get("reason") == "PausedByAction", "it is held")
    git("agent:2")  # the first time a tool takes an object over it changes who owns what
    audit.rest(desk.name)
    before = place.get("supportagents", desk.name)
    with audit() as requests:
        for _ in range(15):
            git("agent:2")
        time.sleep(1)
    after = place.get("supportagents", desk.name)
    assert after["status"] == before["status"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert [one["requestURI"] for one in requests if one["verb"] not in {"get", "list", "watch"}] == []


def test_after_a_rollback(desk: Any, git: Callable[[str], None], place: Any) -> None:
    """Git still asks for what failed: it is not tried again, however often it is applied."""
    git("agent:1")
    desk.eventually(lambda: place.is_ready(desk.name), "the first revision serves", 40)
    git("agent:2")
    second = desk.at_pause()
    desk.ask("abort", second)
    desk.eventually(lambda: desk.state["phase"] == "RolledBack", "it is rolled back", 30)
    with history(place, desk.name) as states:
        for _ in range(15):
            git("agent:2")
        time.sleep(1)
    assert states == [] or {one["phase"] for one in states} == {"RolledBack"}
    assert desk.state["failedRevision"] == second
