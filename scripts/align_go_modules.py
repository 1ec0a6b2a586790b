"""Give the aligned modules of local_cluster/ Kubernetes' versions of the dependencies they share with it.

Go's build cache is keyed by module version, so the control plane's libraries are compiled once for the whole cluster
only if every module agrees on them. Go picks the highest version that anything asks for; an `exclude` keeps the ones
above Kubernetes' out, and a `require` lifts the ones below. Run it after a pin has changed, then build and test:

    python scripts/align_go_modules.py
"""

import os
import re
import subprocess
from pathlib import Path

from supportfleet.local import pins
from supportfleet.local.pins import Module

HEADER = "// Dependencies shared with ../kubernetes have its versions: scripts/align_go_modules.py.\n"
# Excluding one version can bring another into the graph; it settles in two or three rounds.
ROUNDS = 10
TIMEOUT_S = 600
ENVIRONMENT = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off", "CGO_ENABLED": "0"}

_REQUIREMENT = re.compile(r"^\t(\S+) (v\S+) // indirect$", re.MULTILINE)
_VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-(.+))?")


def go(folder: Path, *arguments: str) -> str:
    """Run Go in a module's folder."""
    return subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
    ).stdout


def order(version: str) -> tuple[int, int, int, bool, str]:
    """Sort versions as Go does: a pre-release (or a commit) comes before its release."""
    match = _VERSION.match(version)
    if match is None:
        raise ValueError(version)
    return int(match[1]), int(match[2]), int(match[3]), match[4] is None, match[4] or ""


def required(go_mod: str) -> dict[str, str]:
    """Every module that a tidied go.mod requires: all that is needed to build."""
    return dict(_REQUIREMENT.findall(go_mod))


def corrections(module: Module, go_mod: str, graph: str, wanted: dict[str, str]) -> list[str]:
    """The `go mod edit` flags that move shared modules towards the wanted versions; none if all are there."""
    present = required(go_mod)
    shared = {path for path in present.keys() & wanted.keys() if not path.startswith(tuple(module.keeps))}
    asked = {tuple(node.rsplit("@", 1)) for node in graph.split() if "@" in node}
    above = [
        (path, version) for path, version in sorted(asked) if path in shared and order(version) > order(wanted[path])
    ]
    lifted = [(path, wanted[path]) for path in sorted(shared) if present[path] != wanted[path]]
    return [*(f"-exclude={p}@{v}" for p, v in above), *(f"-require={p}@{v}" for p, v in lifted)]


def align(module: Module, wanted: dict[str, str]) -> None:
    """Edit one go.mod until nothing differs."""
    file = module.folder / "go.mod"
    kept = re.sub(r"^exclude (\([^)]*\)|.*)\n+", "", file.read_text(), flags=re.MULTILINE)
    file.write_text(HEADER + kept.removeprefix(HEADER))
    for _ in range(ROUNDS):
        go(module.folder, "mod", "tidy")
        edits = corrections(module, file.read_text(), go(module.folder, "mod", "graph"), wanted)
        if not edits:
            print(f"{module.name}: aligned")
            return
        go(module.folder, "mod", "edit", *edits)
    raise SystemExit(f"{module.name}: not aligned after {ROUNDS} rounds")


def main() -> None:
    """Align every module that the table marks."""
    table = pins.load()
    wanted = required(table.modules["kubernetes"].go_mod)
    for module in table.modules.values():
        if module.aligned:
            align(module, wanted)


if __name__ == "__main__":
    main()
