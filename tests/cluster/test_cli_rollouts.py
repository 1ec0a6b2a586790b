"""The command line on a real API server with a real operator: what people type, from a new image to the way back."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ALONE = {"traffic": {"provider": "None"}}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]


@pytest.fixture
def desk(desk: Any) -> Any:
    """An agent of the test's own, without routes."""
    desk.spec |= ALONE
    return desk


@pytest.fixture
def environment(control_plane: Any, tmp_path: Path) -> dict[str, str]:
    """Puts kubectl on PATH, whose context has no namespace of its own, and ``kubectl supportfleet`` beside it."""
    (tmp_path / "kubectl").symlink_to(control_plane.kubectl_path)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**control_plane.env, "PATH": path, "COLUMNS": "200"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def supportfleet(place: Any, environment: dict[str, str]) -> Run:
    """Run a command as people do, for the namespace of this file."""

    def run(*arguments: str, stdin: str | None = None, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supportfleet", *arguments, "-n", place.name]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environment, timeout=120, check=False
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    return run


class TestARollout:
    def test_from_a_new_image_to_the_way_back(self, desk: Any, place: Any, supportfleet: Run) -> None:
        """set, pause, resume, promote and undo each do what they say, and --wait ends when it is done."""
        first = desk.started()
        assert "agent:1 -> agent:2" in supportfleet("set", "image", desk.name, "agent:2").stdout
        second = desk.at_pause()
        counted = lambda: place.get("deployments", f"{desk.name}-{second}")["status"].get("readyReplicas")  # noqa: E731
        desk.eventually(lambda: counted() == 1, "the Deployment counts its pod, a moment after the operator did")
        seen = json.loads(supportfleet("status", desk.name, "-o", "json").stdout)
        assert (seen["stableRevision"], seen["canaryRevision"], seen["weight"]) == (first, second, 20)
        assert [one["state"] for one in seen["steps"]] == ["done", "current", "waiting", "waiting"]
        canary = next(one for one in seen["revisions"] if one["role"] == "canary")
        assert (canary["image"], canary["ready"], canary["desired"], canary["number"]) == ("agent:2", 1, 1, 2)
        assert "paused by a person" in supportfleet("pause", desk.name, "--wait").stdout
        assert "it is paused already" in supportfleet("pause", desk.name, code=1).stderr
        supportfleet("resume", desk.name, "--wait")
        assert desk.state["reason"] == "PauseStep"
        assert f"{second} is the stable revision" in supportfleet("promote", desk.name, "--wait").stdout
        assert desk.is_stable(second)
        lines = supportfleet("history", desk.name).stdout.splitlines()
        assert [line.split()[:2] for line in lines[1:]] == [["2", second], ["1", first]]
        assert lines[1].split()[2] == "stable"
        assert f"{first} is the stable revision" in supportfleet("undo", desk.name, "--wait").stdout
        assert desk.is_stable(first)
        assert "paused at 20 %" in supportfleet("retry", desk.name, "--wait").stdout
        assert desk.state["canaryRevision"] == second

    def test_abort(self, desk: Any, supportfleet: Run) -> None:
        """The canary is rolled back, and what makes no sense then is refused with the reason."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        supportfleet("abort", desk.name, "--wait")
        assert (desk.state["phase"], desk.state["failedRevision"]) == ("RolledBack", second)
        text = supportfleet("status", desk.name).stdout
        assert re.search(rf"{second} +failed +.*0 %", text)
        assert re.search(rf"{first} +stable +.*100 %", text)
        assert f"{second} is rolled back already" in supportfleet("abort", desk.name, code=1).stderr
        assert "no revision is being rolled out" in supportfleet("promote", desk.name, code=1).stderr
        assert "which was rolled back" in supportfleet("undo", desk.name, code=1).stderr

    def test_who_wrote_it(self, desk: Any, place: Any, supportfleet: Run) -> None:
        """The API server knows that supportfleet-cli did, so that a GitOps tool sees it."""
        desk.started()
        supportfleet("set", "image", desk.name, "agent:2")
        fields = place.get("supportagents", desk.name)["metadata"]["managedFields"]
        ours = next(one for one in fields if one["manager"] == "supportfleet-cli")
        assert ours["fieldsV1"] == {"f:spec": {"f:template": {"f:image": {}}}}


class TestPlan:
    def test_exit_codes(self, desk: Any, place: Any, supportfleet: Run) -> None:
        """0 for the same, 1 for a change, 2 for what is refused; the cluster stays as it is."""
        desk.started()
        before = place.get("supportagents", desk.name)
        text = yaml.safe_dump(desk.manifest("agent:1"))
        assert "nothing would change" in supportfleet("plan", "-f", "-", stdin=text).stdout
        text = yaml.safe_dump(desk.manifest("agent:2"))
        found = json.loads(supportfleet("plan", "-f", "-", "-o", "json", stdin=text, code=1).stdout)["items"][0]
        assert (found["newRevision"], found["because"]) == (True, ["spec.template.image"])
        assert len(found["steps"]) == 4
        more = desk.manifest("agent:1")
        more["spec"]["replicas"] = 5
        found = json.loads(supportfleet("plan", "-f", "-", "-o", "json", stdin=yaml.safe_dump(more), code=1).stdout)[
            "items"
        ][0]
        assert (found["newRevision"], found["changes"]) == (
            False,
            [{"path": "spec.replicas", "before": 4, "after": 5}],
        )
        for bad, why in (({"replicas": -1}, "spec.replicas"), ({"replica": 1}, "spec.replica:")):
            more["spec"] |= bad
            said = supportfleet("plan", "-f", "-", stdin=yaml.safe_dump(more), code=2).stdout
            assert "is refused" in said
            assert why in said
        after = place.get("supportagents", desk.name)
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["metadata"].get("annotations") == before["metadata"].get("annotations")

    def test_it_tells_what_happens(self, desk: Any, supportfleet: Run) -> None:
        """Going back to the stable image is planned as such in the middle of a rollout, and comes so."""
        first = desk.started()
        desk.apply("agent:2")
        second = desk.at_pause()
        text = yaml.safe_dump(desk.manifest("agent:1"))
        said = supportfleet("plan", "-f", "-", stdin=text, code=1).stdout
        assert f"back to {first}, which is stable: no steps; the rollout of {second}, at 20 %, ends" in said
        desk.apply("agent:1")
        desk.eventually(lambda: desk.is_stable(first), "the rollout is over")

    def test_after_kubectl_apply(self, desk: Any, place: Any, supportfleet: Run) -> None:
        """A field that kubectl apply set and the file has no more is planned to go, as it then does."""
        agent = desk.manifest("agent:1")
        agent["spec"]["config"] = {"greeting": "hi"}
        place.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(agent))
        desk.eventually(lambda: place.is_ready(desk.name), "it serves", 40)
        del agent["spec"]["config"]
        text = yaml.safe_dump(agent)
        found = json.loads(supportfleet("plan", "-f", "-", "-o", "json", stdin=text, code=1).stdout)["items"][0]
        assert [one["path"] for one in found["changes"]] == ["spec.config.greeting"]
        place.kubectl("apply", "-f", "-", stdin=text)
        assert place.get("supportagents", desk.name)["spec"]["config"] == {}
        supportfleet("plan", "-f", "-", stdin=text, code=0)

    def test_a_new_agent(self, place: Any, operator: Any, supportfleet: Run) -> None:
        """An agent that is not there would be created, and is not."""
        agent = HELPER["manifest"]("newcomer", **ALONE)
        assert "would be created" in supportfleet("plan", "-f", "-", stdin=yaml.safe_dump(agent), code=1).stdout
        assert place.get("supportagents", "newcomer") is None


class TestForGit:
    def test_a_patch(self, desk: Any, place: Any, supportfleet: Run) -> None:
        """--patch touches nothing, and what it prints makes the change."""
        desk.started()
        before = place.get("supportagents", desk.name)["metadata"]["generation"]
        patch = supportfleet("set", "image", desk.name, "agent:2", "--patch").stdout
        assert place.get("supportagents", desk.name)["metadata"]["generation"] == before
        place.kubectl("patch", "supportagent", desk.name, "--type=merge", "--patch", patch)
        assert place.get("supportagents", desk.name)["spec"]["template"]["image"] == "agent:2"
        desk.at_pause()


class TestWatching:
    def test_it_shows_the_rollout(self, desk: Any, place: Any, supportfleet: Run, environment: dict[str, str]) -> None:
        """--watch shows each weight as it comes; Ctrl-C ends it with exit code 0, and its kubectl with it."""
        desk.started()
        command = [sys.executable, "-m", "supportfleet", "status", desk.name, "-n", place.name, "-w", "-o", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["phase"] == "Idle"
            desk.apply("agent:2")
            second = desk.at_pause()
            supportfleet("promote", desk.name, "--wait")
            seen = [json.loads(process.stdout.readline())]
            while seen[-1]["stableRevision"] != second:
                seen.append(json.loads(process.stdout.readline()))
            process.send_signal(signal.SIGINT)
            seen += [json.loads(line) for line in process.stdout]
            assert process.wait(10) == 0
        weights = list(dict.fromkeys(one["weight"] for one in seen if one.get("canaryRevision") == second))
        assert weights[:2] == [0, 20]
        assert seen[-1]["stableRevision"] == second


def test_it_is_a_kubectl_plugin(desk: Any, place: Any, environment: dict[str, str]) -> None:
    """``kubectl supportfleet`` is the same program, under that name."""

    def kubectl(*arguments: str) -> str:
        done = subprocess.run(
            ["kubectl", "supportfleet", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    desk.started()
    assert f"{desk.name} in {place.name}" in kubectl("status", "-n", place.name)
    assert "Usage: kubectl supportfleet status" in kubectl("status", "--help")
