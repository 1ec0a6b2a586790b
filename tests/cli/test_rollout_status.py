"""``supportfleet status`` and ``history``: the tree, the same for programs, and what changes while one looks."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from supportfleet.kubectl import Kubectl
from supportfleet.rollouts.api import connect
from supportfleet.rollouts.steps import duration, in_words, least_seconds
from supportfleet.rollouts.tree import Painter
from supportfleet.rollouts.view import AgentView, view
from supportfleet.rollouts.watching import Facts, Scope, Watched, gathered

NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)

WIDE = """\
▶ desk in shop  Canary by Istio  Paused: paused at 10 % of the traffic for 300 s
├── revisions
│   r1111111  stable  ━━━━━━━━━━━━━━    90 %  3/3 ready  agent:1  model 1 (sha256:111111111111)  8d
│   r2222222  canary  ━╸                10 %  1/1 ready  agent:2  model 1 (sha256:111111111111)  7d
├── steps
│   ✔ weight 10 %
│   ▶ pause 5m, 3m left
│   · weight 50 %
│   · pause until somebody resumes or promotes
├── analysis  12s ago  failed 1 of 2
│   ✔  errorRate   0.0123  max 0.02  stable 0.01  240 samples
│   ▶  latencyP99  -       max 2                  3 samples    Inconclusive
└── conditions
    ▶ ScalingActive FailedGetResourceMetric: no metrics from resource metrics API
"""
NARROW = """\
> desk in shop  Canary by Istio  Paused:
paused at 10 % of the traffic for 300 s
+-- revisions
|   r1111111  stable     90 %  3/3 ready
|   8d
|     agent:1, model 1
|   (sha256:111111111111)
|   r2222222  canary     10 %  1/1 ready
|   7d
|     agent:2, model 1
|   (sha256:111111111111)
+-- steps
|   + weight 10 %
|   > pause 5m, 3m left
|   . weight 50 %
|   . pause until somebody resumes or
|   promotes
+-- analysis  12s ago  failed 1 of 2
|   + errorRate 0.0123 max 0.02 stable
|   0.01 240 samples
|   > latencyP99 - max 2 3 samples
|   Inconclusive
`-- conditions
    > ScalingActive
    FailedGetResourceMetric: no metrics
    from resource metrics API
"""


def seen(fleet: Any) -> AgentView:
    listed: dict[str, dict[str, Any]] = {"agents": {}, "deployments": {}, "revisions": {}}
    kinds = {"supportagents": "agents", "deployments": "deployments", "controllerrevisions": "revisions"}
    for (plural, _, name), one in fleet.api.objects.items():
        listed[kinds[plural]][name] = one
    return view(gathered(Scope("shop", "desk"), listed)[0])


def painted(agent: AgentView, width: int, **terminal: Any) -> str:
    encoding = terminal.pop("encoding", "utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, width=width, **terminal)
    console.print(Painter(console, NOW).tree(agent))
    out.flush()
    text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


class TestTree:
    def test_all_of_a_rollout(self, fleet: Any) -> None:
        """On a wide terminal each revision is a row with its share as a bar, and the current step is marked."""
        fleet.canary()
        assert painted(seen(fleet), 140) == WIDE

    def test_a_narrow_terminal_without_unicode(self, fleet: Any) -> None:
        """On 40 columns nothing is cut, and where only ASCII can be shown nothing else is."""
        fleet.canary()
        text = painted(seen(fleet), 40, encoding="ascii")
        assert text == NARROW
        assert max(map(len, text.splitlines())) <= 40

    def test_colours_need_a_terminal(self, fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Escape codes go to terminals alone, and no colours there where NO_COLOR is set."""
        fleet.canary()
        monkeypatch.setenv("TERM", "xterm-256color")
        assert "\x1b[" not in painted(seen(fleet), 140)
        assert "\x1b[32m" in painted(seen(fleet), 140, force_terminal=True)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not re.search(r"\x1b\[(3|9)\dm", painted(seen(fleet), 140, force_terminal=True))

    def test_an_agent_that_is_well(self, fleet: Any) -> None:
        """There is nothing to say but which revision serves."""
        fleet.agent()
        fleet.revision("r1111111", 1, fleet.spec(), pods=(3, 3))
        lines = painted(seen(fleet), 140).splitlines()
        assert lines[0] == "✔ desk in shop  Canary by Istio  Idle"
        assert [line.split()[0:2] for line in lines[1:]] == [["└──", "revisions"], ["r1111111", "stable"]]

    def test_layers_follow_the_pods_that_customers_reach(self, fleet: Any) -> None:
        """A revision's worker and tools are shown after its own pods, to people and to programs."""
        fleet.agent()
        fleet.revision("r1111111", 1, fleet.spec(), pods=(3, 3))
        of_revision = fleet.api.objects["deployments", "shop", "desk-r1111111"]
        for layer, ready in (("tools", 2), ("worker", 4)):
            meta = of_revision["metadata"]
            labels = {**meta["labels"], "app.kubernetes.io/component": layer}
            own = {**meta, "name": f"{meta['name']}-{layer}", "labels": labels}
            fleet.api.put(
                {"kind": "Deployment", "metadata": own, "spec": {"replicas": 5}, "status": {"readyReplicas": ready}}
            )
        (found,) = seen(fleet).to_json()["revisions"]
        assert (found["ready"], found["desired"]) == (3, 3)
        assert found["layers"] == [
            {"name": "worker", "ready": 4, "desired": 5},
            {"name": "tools", "ready": 2, "desired": 5},
        ]
        assert "3/3 ready, worker 4/5, tools 2/5" in painted(seen(fleet), 140)

    def test_what_was_rolled_back(self, fleet: Any) -> None:
        """A failed revision stays in sight without pods, and no steps are shown."""
        fleet.agent(state={"phase": "RolledBack", "failedRevision": "r2222222", "message": "errorRate 0.5 > 0.02"})
        fleet.revision("r1111111", 1, fleet.spec(), pods=(3, 3))
        fleet.revision("r2222222", 2, fleet.spec("agent:2"))
        text = painted(seen(fleet), 140)
        assert "RolledBack: errorRate 0.5 > 0.02" in text
        assert re.search(r"r2222222  failed .* 0 %  0/0 ready  agent:2", text)
        assert "steps" not in text

    def test_an_agent_that_nobody_has_seen(self, fleet: Any) -> None:
        """Without a status it says so, instead of inventing one."""
        agent = fleet.agent()
        del agent["status"]
        assert painted(view(Facts(agent)), 100).startswith("▶ desk in shop  Canary by Istio  the operator has not seen")

    def test_steps_that_a_newer_operator_knows(self) -> None:
        """A step of an unknown kind is shown as it is."""
        assert in_words({"setHeader": {"a": 1}}) == 'setHeader {"a": 1}'
        assert in_words({"setMirror": 20}) == "copy 20 % of the requests"


class TestTime:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (61, "1m1s"), (7200, "2h"), (90061, "1d1h")],
    )
    def test_durations(self, seconds: float, text: str) -> None:
        """Two units at most, rounded down."""
        assert duration(seconds) == text

    @pytest.mark.parametrize(
        ("steps", "interval", "least"),
        [
            ([], 30, 0),
            ([{"setWeight": 10}, {"pause": {"durationSeconds": 300}}, {"setWeight": 50}], None, 300),
            ([{"setWeight": 10}, {"pause": {"durationSeconds": 300}}, {"setWeight": 50}], 30, 330),
            ([{"setWeight": 10}, {"setWeight": 50}], 30, 60),
            ([{"pause": {"durationSeconds": 5}}, {"analysis": {}}], 30, 35),
            ([{"setWeight": 10}, {"pause": {}}, {"analysis": {}}], 30, 30),
            ([{"setMirror": 20}, {"setMirror": 0}, {"setWeight": 10}], 30, 60),
            ([{"setMirror": 20}, {"pause": {"durationSeconds": 60}}, {"setMirror": 0}], 30, 60),
        ],
    )
    def test_the_least_time(self, steps: list[dict[str, Any]], interval: float | None, least: float) -> None:
        """Pauses add up, and each weight is left only after a measurement at it, to which pauses count."""
        assert least_seconds(steps, interval) == least

    def test_an_ab_test_is_measured_from_the_beginning(self) -> None:
        """Its pauses count towards the measurement that has to pass before the promotion."""
        assert least_seconds([{"pause": {"durationSeconds": 5}}], 30, always_measured=True) == 30
        assert least_seconds([{"pause": {"durationSeconds": 50}}], 30, always_measured=True) == 50

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.fixed_dictionaries({"setWeight": st.integers(1, 100)}),
                st.fixed_dictionaries({"pause": st.fixed_dictionaries({"durationSeconds": st.integers(1, 900)})}),
                st.just({"analysis": {}}),
                st.fixed_dictionaries({"setMirror": st.integers(0, 100)}),
            ),
            max_size=12,
        )
    )
    def test_the_least_time_grows_with_the_steps(self, steps: list[dict[str, Any]]) -> None:
        """It is never less than the pauses, and another step never makes it shorter."""
        pauses = sum(one["pause"]["durationSeconds"] for one in steps if "pause" in one)
        assert least_seconds(steps, 30) >= pauses
        assert all(least_seconds(steps[:n], 30) <= least_seconds(steps[: n + 1], 30) for n in range(len(steps)))


class TestStatus:
    def test_of_one_agent(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """It asks for this agent in the context's namespace, and shows it without a terminal in full."""
        fleet.canary()
        said = supportfleet("status", "desk")
        assert (said.code, said.err) == (0, "")
        assert "r2222222  canary  ━" in said.out
        assert "\x1b" not in said.out
        assert {path.split("/")[5] for _, path, *_ in fleet.api.requests} == {"shop"}

    def test_for_programs(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """JSON and YAML hold the same, in camelCase and without what is unknown."""
        fleet.canary()
        found = json.loads(supportfleet("status", "desk", "-o", "json").out)
        assert found == yaml.safe_load(supportfleet("status", "desk", "-o", "yaml").out)
        assert (found["stableRevision"], found["canaryRevision"], found["weight"]) == ("r1111111", "r2222222", 10)
        assert [one["state"] for one in found["steps"]] == ["done", "current", "waiting", "waiting"]
        assert found["steps"][1]["endsAt"] == "2026-11-21T12:03:00Z"
        assert found["analysis"][0] == {
            "metric": "errorRate",
            "verdict": "Pass",
            "value": 0.0123,
            "limits": {"max": 0.02},
            "stable": 0.01,
            "samples": 240,
        }
        roles = {one["name"]: one["role"] for one in found["revisions"]}
        assert roles == {"r1111111": "stable", "r2222222": "canary", "r0000000": "previous"}
        assert sum(one["weight"] for one in found["revisions"]) == 100

    def test_of_all_agents(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """Without a name all agents of the namespace are shown, with -A those of all; none is said as such."""
        assert "No agents in namespace shop." in supportfleet("status").out
        fleet.canary()
        fleet.agent("door")
        said = supportfleet("status").out
        assert said.index("desk in shop") < said.index("door in shop")
        assert len(json.loads(supportfleet("status", "-A", "-o", "json").out)["items"]) == 2
        assert supportfleet("status", "-A", "desk").code == 2

    def test_children_of_a_namesake(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """What an agent of the same name, deleted since, has left behind is not shown."""
        fleet.canary()
        agent = fleet.api.agent()
        agent["metadata"]["uid"] = "another"
        fleet.api.put(agent)
        found = json.loads(supportfleet("status", "desk", "-o", "json").out)
        assert [(one["name"], one["desired"]) for one in found["revisions"]] == [("r1111111", 0), ("r2222222", 0)]

    def test_a_missing_agent(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """It is an error with a remedy, and no traceback."""
        said = supportfleet("status", "nobody")
        assert said.code == 1
        assert said.err.startswith("error: there is no agent 'nobody' in namespace 'shop'\n")
        assert said.out == ""

    def test_without_kubectl(self, supportfleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """It is an error with a remedy."""
        monkeypatch.setenv("PATH", "/nowhere")
        said = supportfleet("status")
        assert (said.code, "kubectl is not on PATH" in said.err) == (1, True)

    def test_the_socket_is_gone_afterwards(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """What kubectl serves on is in a folder of its own, which goes with the command."""
        fleet.canary()
        supportfleet("status", "desk")
        (folder,) = re.findall(r"--unix-socket=(\S+)/api.sock", fleet.api.calls.read_text())
        assert "supportfleet-" in folder
        assert not Path(folder).exists()


class TestHistory:
    def test_newest_first(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """Number, state, image and model of each revision that is kept."""
        fleet.canary()
        lines = supportfleet("history", "desk").out.splitlines()
        assert lines[0].split() == ["NUMBER", "REVISION", "STATE", "IMAGE", "MODEL", "CREATED"]
        assert [line.split()[:3] for line in lines[1:]] == [
            ["3", "r2222222", "canary"],
            ["2", "r1111111", "stable"],
            ["1", "r0000000", "previous:"],
        ]
        assert "agent:0" in lines[3]

    def test_for_programs(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """The same as JSON."""
        fleet.canary()
        found = json.loads(supportfleet("history", "desk", "-o", "json").out)
        assert [one["number"] for one in found["items"]] == [3, 2, 1]

    def test_none_yet(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """A new agent has none."""
        fleet.agent(state={"stableRevision": None})
        assert supportfleet("history", "desk").out == "desk has no revision yet."


class TestWatching:
    async def test_what_changes_is_seen(self, fleet: Any) -> None:
        """A change of the agent or of a Deployment is there without another list; a deleted agent is an error."""
        fleet.canary()
        async with connected() as watched:
            assert await watched.until(lambda facts: len(facts.deployments) == 2, 5)
            await until(lambda: len(fleet.api._streams) == 3)
            lists = len(fleet.api.requests)
            fleet.api._tell("supportagents", {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}})
            fleet.api.status(currentWeight=50)
            assert await watched.until(lambda facts: view(facts).weight == 50, 5)
            fleet.revision("r2222222", 3, fleet.spec("agent:2"), pods=(2, 2))
            assert await watched.until(lambda facts: view(facts).revisions[1].ready == 2, 5)
            assert len(fleet.api.requests) == lists
            fleet.api.remove("supportagents", "desk")
            with pytest.raises(Exception, match="there is no agent 'desk'"):
                await watched.until(lambda facts: False, 5)

    async def test_a_broken_watch_is_begun_anew(self, fleet: Any) -> None:
        """A few breaks in a row are made good, and what happened meanwhile is seen."""
        fleet.canary()
        fleet.api.breaks = 6
        async with connected() as watched:
            fleet.api.status(currentWeight=50)
            assert await watched.until(lambda facts: view(facts).weight == 50, 10)
            await until(lambda: len(fleet.api._streams) == 3)

    async def test_a_watch_that_keeps_breaking_is_given_up(self, fleet: Any) -> None:
        """After a bounded number of tries the error is told."""
        fleet.canary()
        fleet.api.breaks = 1000
        async with connected() as watched:
            with pytest.raises(Exception, match="the API server did not answer"):
                await watched.until(lambda facts: False, 30)

    def test_watch_prints_what_changes(self, fleet: Any, supportfleet: Callable[..., Any]) -> None:
        """--watch -o json is a line for each change, until the agent is gone."""
        fleet.canary()

        def change() -> None:
            wait_until(lambda: len(fleet.api._streams) == 3)
            fleet.api.status(currentWeight=50)
            wait_until(lambda: len(printed.getvalue().splitlines()) == 2)
            fleet.api.remove("supportagents", "desk")

        printed: Any = sys.stdout  # as pytest captures it
        thread = threading.Thread(target=change)
        thread.start()
        said = supportfleet("status", "desk", "--watch", "-o", "json")
        thread.join()
        assert [json.loads(line)["weight"] for line in said.out.splitlines()] == [10, 50]
        assert (said.code, "there is no agent 'desk'" in said.err) == (1, True)

    def test_on_a_terminal_the_tree_stays_in_place(self, fleet: Any) -> None:
        """The newest tree is written over the one before, coloured and as wide as the terminal, until Ctrl-C."""
        fleet.canary()
        terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment = {key: value for key, value in environment.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
        command = [sys.executable, "-m", "supportfleet", "status", "desk", "--watch"]
        with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment) as process:
            os.close(end)
            shown = seen_on(terminal, "conditions")
            fleet.api.status(currentWeight=50)
            shown += seen_on(terminal, " 50 %")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        os.close(terminal)
        assert "\x1b[33mcanary" in shown
        assert re.search(r"\x1b\[\d*A", shown)  # the cursor goes up again
        plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown)
        assert max(map(len, plain.replace("\r", "\n").splitlines())) <= 60


def seen_on(terminal: int, text: str) -> str:
    """What is written to a terminal until this text is."""
    written, deadline = b"", time.monotonic() + 60
    while text not in written.decode(errors="replace"):
        assert time.monotonic() < deadline, written
        if select.select([terminal], [], [], 0.1)[0]:
            written += os.read(terminal, 65536)
    return written.decode(errors="replace")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


@asynccontextmanager
async def connected() -> AsyncIterator[Watched]:
    """The agent ``desk``, watched."""
    async with connect(Kubectl()) as api:
        watched = Watched(api, Scope("shop", "desk"), first_delay=0.005)
        watched.start()
        try:
            yield watched
        finally:
            await watched.stop()
