"""Which images exist, and making the ones that don't.

An archive's place in the cache is ``images/<name>/<key>.tar``, where the key covers everything the image is made of
(for our own images it follows the key of their dependencies): an archive that exists is complete and current. It is
written beside its place and renamed, under one lock for all builds, since they share a work folder and buildah's
storage; what a killed build left is removed by the next.
"""

import asyncio
import contextlib
import datetime as dt
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from supportfleet.local import binaries, cache
from supportfleet.local.images import archives, network, sources
from supportfleet.local.images.debian import Debian
from supportfleet.local.images.engines import Buildah, Docker, Engine, Request, Workspace
from supportfleet.local.images.sources import SOURCES, Context, ImageError
from supportfleet.local.processes import ProgramError, run
from supportfleet.local.progress import Progress

NAMES = ("pause", "base", *SOURCES)
# The Debian packages that building needs.
PACKAGES = ("buildah", "mmdebstrap", "util-linux")

LANE = "images"
LOCK_TIMEOUT_S = 3600.0
BOOTSTRAP_TIMEOUT_S = 1200.0
DOCKER_TIMEOUT_S = 10.0
# First guesses on two cores, from nothing and on dependencies that are there.
EXPECTED_S = {"pause": 1.0, "base": 35.0, "operator": 25.0, "agent": 40.0}
CODE_EXPECTED_S = 4.0
# Archives of one image that stay: the current one, and what another branch or checkout may come back to.
KEPT_ARCHIVES = 3
MEBIBYTES = 3000
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def reference(name: str) -> str:
    """The image's name in a cluster, for example docker.io/supportfleet/agent:dev."""
    return f"docker.io/supportfleet/{name}:dev"


async def build(names: Iterable[str], *, progress: Progress, repository: Path | None = None) -> dict[str, Path]:
    """Have the archives of these images, building what is missing from the checkout (this one, if none is given)."""
    return {name: await _ensure(name, progress, repository) for name in dict.fromkeys(names)}


async def archive_of(image: str, *, progress: Progress) -> Path:
    """The archive of one of our images, however its name is written; built if need be."""
    name = next((name for name in NAMES if image in {name, f"supportfleet/{name}:dev", reference(name)}), image)
    return await _ensure(name, progress, None)


@dataclass(frozen=True)
class _Plan:
    """How to have one image: its archives (the first is the image's, others serve builds), and how to make them."""

    step: str
    expected: float
    archives: Sequence[Path]
    make: Callable[[Workspace, Sequence[Path]], Awaitable[None]]
    needs: Sequence[str] = ()

    @property
    def done(self) -> bool:
        return all(path.exists() for path in self.archives)


async def _ensure(name: str, progress: Progress, repository: Path | None) -> Path:
    plan = await _plan(name, progress, repository)
    if not plan.done:
        for other in plan.needs:
            await _ensure(other, progress, repository)
        with progress.step(plan.step, expected=plan.expected, lane=LANE) as step:
            async with _workspace(step.note) as workspace:
                if not plan.done:  # another run may have made it meanwhile
                    await _make(plan, workspace)
    for path in plan.archives:
        os.utime(path)  # what was not used for longest is pruned
    return plan.archives[0]


async def _make(plan: _Plan, workspace: Workspace) -> None:
    made = [workspace.root / f"{number}.tar" for number, _ in enumerate(plan.archives)]
    await plan.make(workspace, made)
    for temporary, final in reversed(list(zip(made, plan.archives, strict=True))):
        cache.make_dir(final.parent)
        await asyncio.to_thread(cache.publish, temporary, final)
        _prune(final)


async def _plan(name: str, progress: Progress, repository: Path | None) -> _Plan:
    step = f"image supportfleet/{name}"
    if name == "pause":
        program = (await binaries.ensure(["pause"], progress=progress))["pause"]
        archive = _archive(name, cache.digest(program.read_bytes()))
        return _Plan(step, EXPECTED_S[name], [archive], partial(_make_pause, program))
    if name == "base":
        debian = Debian.here()
        return _Plan(step, EXPECTED_S[name], _bases(debian), partial(_make_base, debian))
    if source := SOURCES.get(name):
        engine = Docker() if await _docker_answers() else Buildah(_folder() / "storage", *_bases(Debian.here()))
        return _plan_own(source.read(repository or sources.repository()), engine)
    known = ", ".join(f"supportfleet/{name}:dev" for name in NAMES)
    raise ImageError(f"{name} is neither an image archive nor one of {known}")


def _plan_own(context: Context, engine: Engine) -> _Plan:
    name = context.source.name
    dependencies = context.dependencies_key(engine.identity)
    archive = _archive(name, f"{dependencies}-{context.key(engine.identity)}")
    step, expected = f"image supportfleet/{name}", EXPECTED_S[name]
    if any(archive.parent.glob(f"{dependencies}-*.tar")):  # a step of its own, since it takes a tenth of the time
        step, expected = f"code of image supportfleet/{name}", CODE_EXPECTED_S
    needs = ("base",) if isinstance(engine, Buildah) else ()
    return _Plan(step, expected, [archive], partial(_make_own, context, engine), needs)


async def _make_pause(program: Path, workspace: Workspace, made: Sequence[Path]) -> None:
    layer = workspace.root / "layer.tar"
    archives.layer_of(layer, program)
    settings = {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"}
    archives.write(made[0], reference=reference("pause"), layers=[layer], config=_config(settings))


async def _make_base(debian: Debian, workspace: Workspace, made: Sequence[Path]) -> None:
    layers = [workspace.root / "base-layer.tar", workspace.root / "build-layer.tar"]
    try:
        await workspace.run(debian.command(*layers), timeout_s=BOOTSTRAP_TIMEOUT_S)
    except ProgramError as error:
        raise ImageError(
            f"the base image could not be made: {error}",
            remedy=f"It is made from Debian's packages at {debian.mirror}: check that this machine can reach it, or "
            "name a mirror in SUPPORTFLEET_DEBIAN_MIRROR.",
        ) from error
    settings = {"Env": [_PATH], "Cmd": ["/bin/sh"]}
    for archive, layer, name in zip(made, layers, (reference("base"), "localhost/build:dev"), strict=True):
        await asyncio.to_thread(archives.write, archive, reference=name, layers=[layer], config=_config(settings))
        layer.unlink()


async def _make_own(context: Context, engine: Engine, workspace: Workspace, made: Sequence[Path]) -> None:
    context.stage(workspace.folder("context"))
    network.of(os.environ).stage(workspace.folder("given"), workspace.folder("find-links"))
    name = context.source.name
    await engine.build(Request(context, reference(name), workspace, made[0], log=_folder() / f"{name}.log"))


def _config(settings: Mapping[str, Any]) -> archives.ImageConfig:
    return archives.ImageConfig(Debian.here().architecture, dt.datetime.now(dt.UTC), settings)


def _folder() -> Path:
    return cache.root() / "images"


def _archive(name: str, key: str) -> Path:
    return _folder() / name / f"{key}.tar"


def _bases(debian: Debian) -> tuple[Path, Path]:
    """The base that pods run, and the one that images are built in."""
    return _archive("base", debian.key), _archive("build", debian.key)


def _prune(current: Path) -> None:
    """Keep the archives of one image that were used last."""
    others = sorted(current.parent.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_ARCHIVES:]:
        path.unlink()


@contextlib.asynccontextmanager
async def _workspace(on_wait: Callable[[str], None]) -> AsyncIterator[Workspace]:
    folder = cache.make_dir(_folder())
    cache.require_space(folder, MEBIBYTES, "building images")
    async with cache.locked("images", timeout_s=LOCK_TIMEOUT_S, on_wait=on_wait) as lock:
        work = folder / "work"
        await asyncio.to_thread(_remove, work)  # of a run that was killed; the lock says none is alive
        work.mkdir(mode=0o700)  # the address of a package index may carry a password
        try:
            yield Workspace(work, lock)
        finally:
            await asyncio.to_thread(_remove, work)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


async def _docker_answers() -> bool:
    try:
        await run(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=DOCKER_TIMEOUT_S)
    except ProgramError:
        return False  # not installed, not running, or not allowed: there is another way
    return True
