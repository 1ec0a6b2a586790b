"""What the documents say of the repository is so: links, files, commands with their options, and examples of a spec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from supportfleet.__main__ import cli
from supportfleet_operator.api import parse
from supportfleet_operator.settings import parser as operator_parser
from supportfleet_runtime import __main__ as runtime

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("local_cluster", "tests/golden")),
]
FOLDERS = "agent_runtime|benchmarks|cli|crds|docs|examples|local_cluster|manifests|operator|scripts|tests"
FILE = re.compile(rf"(?<![\w/.…-])(?:{FOLDERS})/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:kubectl )?\b(supportfleet(?:-runtime|-operator)?) ((?:[a-z][a-z|-]*[a-z] ?)+)([^\n`]*)")
MAKE = re.compile(r"(?:^|[`$] ?)make ([a-z]+)", re.MULTILINE)
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def headings(path: Path) -> set[str]:
    """The anchors of a document."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    """Each link to a file of the repository finds it, and each anchor its heading."""
    for link in LINK.findall(path.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@every_document
def test_files_that_are_named_exist(path: Path) -> None:
    """A path below one of the repository's folders is one."""
    missing = [name for name in FILE.findall(path.read_text()) if not (ROOT / name).exists()]
    assert not missing


def test_every_document_is_linked() -> None:
    """Each document of docs/ is linked from another, or its folder is."""
    links = [(path.parent, link) for path in DOCUMENTS for link in LINK.findall(path.read_text()) if "://" not in link]
    linked = {(folder / link.partition("#")[0]).resolve() for folder, link in links}
    assert not [path for path in (ROOT / "docs").rglob("*.md") if path not in linked and path.parent not in linked]


@cache
def runtime_help(*words: str) -> str:
    """What ``--help`` says, or nothing where there is no such command."""
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as ended:
        runtime.main([*words, "--help"])
    return "" if ended.value.code else said.getvalue()


@cache
def operator_help(*words: str) -> str:
    """The same for ``supportfleet-operator``."""
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as ended:
        operator_parser({}).parse_args([*words, "--help"])
    return "" if ended.value.code else said.getvalue()


@cache
def command_help(*words: str) -> str:
    """The same for ``supportfleet``."""
    command: click.Command | None = cli
    ctx = click.Context(cli, info_name="supportfleet")
    for word in words:
        if not isinstance(command, click.Group):
            break  # what follows is an argument
        command = command.get_command(ctx, word)
    return command.get_help(ctx) if command else ""


def helps(program: str, words: tuple[str, ...]) -> str:
    """The help of the longest command that the words begin with; the first word has to be one."""
    ask = {"supportfleet": command_help, "supportfleet-operator": operator_help}.get(program, runtime_help)
    return next((found for end in range(len(words), 0, -1) if (found := ask(*words[:end]))), "")


def shown(path: Path) -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    """The programs' commands in a document's code, with their options; ``a|b`` are two."""
    code = "\n".join([*re.findall(r"`([^`\n]+)`", FENCED.sub("", path.read_text())), *commands_of_blocks(path)])
    for program, words, rest in COMMAND.findall(code):
        first, *others = words.split()
        for name in first.split("|"):
            yield program, (name, *others), re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition(" | ")[0])


def commands_of_blocks(path: Path) -> Iterator[str]:
    for kind, block in FENCED.findall(path.read_text()):
        lines = block.replace("\\\n", " ").splitlines()
        prompt = "$ " if kind == "console" else ""
        if kind in {"sh", "console"}:
            yield from (line.removeprefix(prompt).partition(" #")[0] for line in lines if line.startswith(prompt))


@every_document
def test_commands_that_are_shown_exist(path: Path) -> None:
    """Each command of ours is one, and has the options that it is shown with."""
    for program, words, options in shown(path):
        said = helps(program, words)
        assert said, f"{program} {' '.join(words)}"
        assert not [option for option in options if option not in said], f"{program} {' '.join(words)}: {options}"


@every_document
def test_targets_of_make_exist(path: Path) -> None:
    """``make`` knows what a document says to make."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE.findall(path.read_text())) <= targets


def test_every_command_of_the_runtime_is_listed() -> None:
    """The table at the top of docs/runtime.md has all of them, and no other."""
    listed = re.findall(r"^\| `([a-z-]+)` \| .* \| 0", (ROOT / "docs" / "runtime.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted([*runtime.OWN, *runtime.OTHERS])


def test_every_command_of_the_local_cluster_is_listed() -> None:
    """The table of docs/local-cluster.md has all commands with the options that they have, and no other."""
    table, _, _ = (ROOT / "docs" / "local-cluster.md").read_text().partition("\n## ")
    rows = re.findall(r"^\| `([a-z][a-z-]*)([^`]*)` \|", table, re.MULTILINE)
    group = cli.get_command(click.Context(cli), "local")
    assert isinstance(group, click.Group)
    assert {name for name, _ in rows} == {*group.commands}
    for name, text in rows:
        known = {flag: one.name for one in group.commands[name].params for flag in one.opts if flag.startswith("-")}
        listed = set(re.findall(r"(?<![\w-])--?[a-z]+", text))
        assert listed <= {*known}, name
        assert {known[flag] for flag in listed} | {"name"} >= {*known.values()}, name


PLACES: dict[str, tuple[str, ...]] = {
    "template": (),
    "traffic": (),
    "rollout": (),
    "steps": ("rollout",),
    "analysis": ("rollout",),
}
"""Where a part of a spec that is shown alone belongs."""
LEAST: dict[str, Any] = {
    "template": {"image": "supportfleet/agent:dev"},
    "database": {"secretRef": {"name": "postgres-credentials"}},
    "traffic": {"provider": "Istio"},
    "rollout": {
        "strategy": "Canary",
        "steps": [{"setWeight": 10}],
        "analysis": {"metrics": [{"name": "errorRate", "max": 0.02}]},
    },
}


def specs() -> Iterator[Any]:
    """The specs, whole or in part, that documents show."""
    for path in DOCUMENTS:
        for number, (kind, block) in enumerate(FENCED.findall(path.read_text())):
            found = yaml.safe_load(block.replace("sha256:…", f"sha256:{'a' * 64}")) if kind == "yaml" else {}
            if found.get("kind") == "SupportAgent" or ({*found} <= {"spec", *PLACES} and found):
                yield pytest.param(found, id=f"{path.name}-{number}")


@pytest.mark.parametrize("found", list(specs()))
def test_specs_that_are_shown_are_valid(found: dict[str, Any]) -> None:
    """What a document shows of a SupportAgent is taken, whole as it is and in part within the least around it."""
    spec = found.get("spec", {})
    if "kind" not in found:
        spec = {**LEAST, **spec}
        for part in {*found} & {*PLACES}:
            above = spec
            for step in PLACES[part]:
                above[step] = above = {**above.get(step, {})}
            above[part] = found[part]
    metadata = {"name": "shown", "namespace": "docs", "uid": "u-1"}
    parse({"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "metadata": metadata, "spec": spec})
