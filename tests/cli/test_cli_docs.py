"""docs/cli.md is about the commands that there are; and both programs, and completion, are one command line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from supportfleet.__main__ import COMMANDS, cli
from supportfleet.completion import main as complete
from supportfleet.rollouts.plan import Plan
from supportfleet.rollouts.view import AgentView, Condition, Figure, Revision, Seen, Step

TEXT = (Path(__file__).parent.parent.parent / "docs" / "cli.md").read_text()
ELSEWHERE = {"local", "demo"}
"""Described in documents of their own."""


def commands(group: click.Group = cli, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command on agents, by the words that lead to it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group) and name not in ELSEWHERE:
            yield from commands(command, *path, name)
        elif not path and name in ELSEWHERE:
            continue
        else:
            yield (*path, name), command


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=" ".join(one[0])) for one in commands()])
def test_every_command_is_described(path: tuple[str, ...], command: click.Command) -> None:
    """Its name and each of its options are in the document, and its help says what it does."""
    assert f"`{' '.join(path)}`" in TEXT
    assert command.help
    for parameter in command.params:
        for flag in parameter.opts:
            if flag.startswith("-"):
                assert re.search(rf"[`\[| ]{re.escape(flag)}[`\] ]", TEXT), flag


def test_every_command_is_listed() -> None:
    """The table at the top has all of them."""
    for name in COMMANDS:
        assert re.search(rf"^\| .*`{name}[` ]", TEXT, re.MULTILINE), name


@pytest.mark.parametrize("model", [AgentView, Revision, Step, Figure, Condition, Plan])
def test_every_field_for_programs_is_listed(model: type[Seen]) -> None:
    """What JSON holds is named."""
    for name, field in model.model_fields.items():
        assert re.search(rf"`{field.alias or name}(\[\])?`", TEXT), field.alias


def test_no_option_is_invented() -> None:
    """What the tables name, the commands have."""
    known = {flag for _, command in commands() for parameter in command.params for flag in parameter.opts}
    assert set(re.findall(r"^\| `(-[-\w]+)`", TEXT, re.MULTILINE)) <= known
    assert set(re.findall(r"^\| `-\w`, `(--[-\w]+)`", TEXT, re.MULTILINE)) <= known


def test_the_example_is_real(fleet: Any, supportfleet: Callable[..., Any], tmp_path: Path) -> None:
    """What the document shows of plan is what it prints."""
    fleet.canary()
    agent = {"kind": "SupportAgent", "metadata": {"name": "desk"}, "spec": {**fleet.spec("agent:3"), "replicas": 5}}
    file = tmp_path / "desk.yaml"
    file.write_text(yaml.safe_dump(agent))
    said = supportfleet("plan", "-f", str(file))
    assert f"$ supportfleet plan -f desk.yaml\n{said.out}\n$ echo $?\n{said.code}\n" in TEXT


def test_history_is_real(fleet: Any, supportfleet: Callable[..., Any]) -> None:
    """What the document shows of history is what it prints, but for the ages."""
    fleet.canary()
    said = re.sub(r"\d+d.*ago", "", supportfleet("history", "desk").out)
    assert said.replace(" ", "") in re.sub(r"\d+d ago", "", TEXT).replace(" ", "")


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (["prom"], ["promote\tGive the canary all of the traffic, without the remaining steps", ":4"]),
            (["promote", "d"], ["desk", "door", ":4"]),
            (["promote", "do"], ["door", ":4"]),
            (["set", ""], ["image\t", "model\t", ":4"]),
            (["status", "-o", "j"], ["json", ":4"]),
            (["plan", "-f", ""], [":0"]),
        ],
    )
    def test_kubectl_is_told(
        self,
        fake_api: Any,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        found: list[str],
    ) -> None:
        """Commands, options' values and agents' names, and whether file names may follow."""
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-supportfleet", *words])
        complete()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(found)
        assert all(line.startswith(start) for line, start in zip(lines, found, strict=True))

    def test_a_cluster_out_of_reach(
        self, fake_api: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No names are no error."""
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-supportfleet", "promote", ""])
        complete()
        assert capsys.readouterr().out == ":4\n"


def test_the_plugin_calls_itself_by_its_name(supportfleet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kubectl plugin it says how it is called there."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-supportfleet"])
    assert supportfleet("status", "--help").out.startswith("Usage: kubectl supportfleet status")


def test_help_loads_no_command() -> None:
    """The top-level help imports neither an HTTP client nor pydantic."""
    code = "import sys; from supportfleet.__main__ import main\ntry: main(['-h'])\nfinally: print(sorted(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "'pydantic'" not in said
    assert "'aiohttp'" not in said
