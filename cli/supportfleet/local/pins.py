"""What the embedded cluster is made of: `local_cluster/binaries.toml` and the pins beside it, read and keyed.

A program is built from a Go module (`local_cluster/<module>/go.mod`, `go.sum`) or comes in a Python package whose
hash is pinned (`local_cluster/<name>.txt`). Its key covers all that it is made of, so a changed pin is another file
in the cache and an unchanged one is never made twice.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import supportfleet
from supportfleet.errors import SupportfleetError
from supportfleet.local import cache

# Part of every key: a change here makes other programs.
BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
STRIP = ("-s", "-w")

_GO_DIRECTIVE = re.compile(r"^go (\d+)\.(\d+)(?:\.(\d+))?", re.MULTILINE)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


class PinsError(SupportfleetError):
    """local_cluster/ is missing or wrong, or something was asked for that is not in it."""


@dataclass(frozen=True)
class Module:
    """A Go module under local_cluster/, the pin of one upstream.

    An aligned module has Kubernetes' versions of what both depend on, except below the paths it keeps.
    """

    name: str
    folder: Path
    upstream: str = ""
    stamps: Mapping[str, str] | None = None
    aligned: bool = False
    keeps: Sequence[str] = ()
    mebibytes: int = 500

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Everything the module consists of, by name."""
        return {file.name: file.read_bytes() for file in sorted(self.folder.iterdir()) if file.is_file()}

    @property
    def go_mod(self) -> str:
        """The text of go.mod."""
        try:
            return self.files["go.mod"].decode()
        except (KeyError, FileNotFoundError) as error:
            raise PinsError(f"{self.folder / 'go.mod'} is missing", remedy="Restore local_cluster/.") from error

    @property
    def go_minimum(self) -> tuple[int, int, int]:
        """The oldest Go that can build it."""
        match = _GO_DIRECTIVE.search(self.go_mod)
        if match is None:
            raise PinsError(f"{self.folder / 'go.mod'} has no go directive", remedy="Restore local_cluster/.")
        return (int(match[1]), int(match[2]), int(match[3] or 0))

    @property
    def ldflags(self) -> str:
        """Flags of the linker: no debug information, and the upstream's version where it asks for a stamp."""
        stamps = [f"-X {variable}={value.format(**self._version)}" for variable, value in (self.stamps or {}).items()]
        return " ".join([*STRIP, *stamps])

    @property
    def _version(self) -> dict[str, str]:
        required = re.search(rf"^\s*(?:require )?{re.escape(self.upstream)} (v\S+)", self.go_mod, re.MULTILINE)
        numbers = _VERSION.match(required[1]) if required else None
        if required is None or numbers is None:
            raise PinsError(f"{self.folder / 'go.mod'} requires no version of {self.upstream!r}")
        return {"version": required[1], "major": numbers[1], "minor": numbers[2]}


@dataclass(frozen=True)
class Wheel:
    """A program inside a Python package, pinned by version and hashes in a requirements file."""

    requirements: Path
    path: str
    seconds: float

    def key(self, platform: str) -> str:
        """What the unpacked package is cached under."""
        return cache.digest("wheel", platform, self.requirements.read_bytes())


@dataclass(frozen=True)
class GoPackage:
    """A main package of a pinned Go module."""

    module: Module
    package: str

    def key(self, go_version: str, platform: str) -> str:
        """What the built program is cached under."""
        files = [part for name, content in self.module.files.items() for part in (name, content)]
        return cache.digest("go", go_version, platform, *BUILD_FLAGS, self.module.ldflags, self.package, *files)


@dataclass(frozen=True)
class Program:
    """One program of the cluster and where it comes from."""

    name: str
    source: GoPackage | Wheel
    groups: frozenset[str]
    seconds: float


@dataclass(frozen=True)
class Pins:
    """The whole table."""

    programs: Mapping[str, Program]
    modules: Mapping[str, Module]
    go: Wheel

    @property
    def go_minimum(self) -> tuple[int, int, int]:
        """The oldest Go that builds every module: one Go for all, so they share its build cache."""
        return max(module.go_minimum for module in self.modules.values())

    def select(self, wanted: Iterable[str]) -> list[Program]:
        """The programs of these groups and names, each once, in the table's order."""
        wanted = frozenset(wanted)
        groups = frozenset[str]().union(*(program.groups for program in self.programs.values()))
        if unknown := sorted(wanted - groups - self.programs.keys()):
            raise PinsError(
                f"unknown programs: {', '.join(unknown)}",
                remedy=f"Known groups: {', '.join(sorted(groups))}; programs: {', '.join(sorted(self.programs))}.",
            )
        return [p for p in self.programs.values() if p.name in wanted or p.groups & wanted]


def local_cluster_dir(package: Path | None = None) -> Path:
    """The folder local_cluster/: inside the installed package, or at the root of a source checkout."""
    package = package or Path(supportfleet.__file__).parent
    for candidate in (package / "local_cluster", package.parent.parent / "local_cluster"):
        if (candidate / "binaries.toml").is_file():
            return candidate
    raise PinsError(
        "local_cluster/ was not found, neither in the installed package nor in a source checkout",
        remedy="Install supportfleet again, or run it from a clone of its repository.",
    )


def load(folder: Path | None = None) -> Pins:
    """Read binaries.toml and resolve what it names."""
    folder = folder or local_cluster_dir()
    table = tomllib.loads((folder / "binaries.toml").read_text())
    try:
        settings = table.get("modules", {})
        names = {entry["module"] for entry in table["binaries"].values() if "module" in entry}
        modules = {name: Module(name, folder / name, **settings.get(name, {})) for name in sorted(names)}
        programs = {name: _program(name, entry, modules, folder) for name, entry in table["binaries"].items()}
        return Pins(programs=programs, modules=modules, go=_wheel(table["go"], folder))
    except (KeyError, TypeError) as error:
        raise PinsError(f"{folder / 'binaries.toml'} is wrong: {error}") from error


def _program(name: str, entry: Mapping[str, Any], modules: Mapping[str, Module], folder: Path) -> Program:
    source = GoPackage(modules[entry["module"]], entry["package"]) if "module" in entry else _wheel(entry, folder)
    return Program(name, source, frozenset(entry["groups"]), float(entry["seconds"]))


def _wheel(entry: Mapping[str, Any], folder: Path) -> Wheel:
    return Wheel(folder / entry["requirements"], entry["path"], float(entry["seconds"]))
