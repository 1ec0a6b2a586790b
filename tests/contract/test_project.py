"""What the project promises of itself: pinned dependencies, strict checks, and one command for each of two things."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ \\]+)( ; [^\\]+?)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_constraints_are_versions_and_hashes() -> None:
    """Each line pins a version or is one of its hashes; none says where anything is downloaded."""
    pins = 0
    for line in CONSTRAINTS.splitlines():
        pin = PIN.match(line)
        assert pin or HASH.match(line), line
        pins += bool(pin)
    assert len(re.findall(r"^\S.*\\\n    --hash=", CONSTRAINTS, re.MULTILINE)) == pins


@pytest.mark.parametrize("extra", [*PROJECT["project"]["optional-dependencies"], "", "build"])
def test_every_dependency_is_pinned(extra: str) -> None:
    """What an extra, the project itself and its build need is among the pinned."""
    needed = {
        "": PROJECT["project"]["dependencies"],
        "build": PROJECT["build-system"]["requires"],
        **PROJECT["project"]["optional-dependencies"],
    }[extra]
    names = {canonical(re.split(r"[\[<>=~! ;]", one)[0]) for one in needed} - {PROJECT["project"]["name"]}
    assert names <= {canonical(pin[1]) for line in CONSTRAINTS.splitlines() if (pin := PIN.match(line))}


def test_every_rule_is_on_and_each_exception_says_why() -> None:
    """Ruff has all its rules but those that are listed with a reason."""
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    exceptions = [*lint["ignore"], *(code for codes in lint["per-file-ignores"].values() for code in codes)]
    assert len(re.findall(r'^  "[A-Z]+[0-9]*", +# \S.+$', TEXT, re.MULTILINE)) == len(exceptions)


def test_types_are_strict() -> None:
    """Mypy is strict, for all of our packages."""
    mypy = PROJECT["tool"]["mypy"]
    packages = [Path(one).name for one in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    assert mypy["strict"] is True
    assert sorted(mypy["packages"]) == sorted(packages)


def test_help_lists_every_target() -> None:
    """`make`, as `make help`, tells what each of its targets is for."""
    listed = re.findall(r"^\W+\[36m([a-z-]+) *\W+\[0m +\S", make("help"), re.MULTILINE)
    assert listed == re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make() == make("help")


def test_the_readme_has_two_commands_and_ci_runs_the_second() -> None:
    """The README begins with `make demo` and `make test`, and continuous integration is the latter."""
    commands = re.findall(r"^```sh\n(.*?)\n```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert commands[:2] == ["make demo", "make test"]
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1] == f"exec {commands[1]}"
