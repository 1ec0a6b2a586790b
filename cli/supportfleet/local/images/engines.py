"""The programs that build an image from a Dockerfile: buildah, and docker where its engine answers.

Both get the same build context, the same secrets and the same folder of wheels, and write a `docker save` archive.

buildah is run in steps, each a target of the Dockerfile: `tools`, `runtime` (the image without our code), and the rest.
The first two stay in its storage under their keys, so a change of code neither runs nor hashes them again.
Everything runs in a mount and a process namespace of its own and dies with the process that asked for it: an
interrupted build leaves no mount and no process behind.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from supportfleet.local.images.sources import Context, ImageError
from supportfleet.local.processes import Output, ProgramError, run

BUILD_TIMEOUT_S = 1800.0
QUERY_TIMEOUT_S = 60.0
# How many of each stage stay in buildah's storage, the one in use among them.
KEPT_STAGES = 2
REASON_LINES = 15
_REPEATS = re.compile(
    r"\s+sha256:|\s+Expected\s+or |subprocess exited|Error: (building at STEP|exit status)|\[.*\] STEP "
)
_CONFINED = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Workspace:
    """The folders of one build: everything in them is temporary."""

    root: Path
    lock: int

    def folder(self, name: str) -> Path:
        """A folder in it, made on first use."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of programs that keep their own temporary files here too."""
        return {**os.environ, "TMPDIR": str(self.folder("tmp"))}

    async def run(self, argv: Sequence[str | Path], *, timeout_s: float = BUILD_TIMEOUT_S) -> Output:
        """Run a program in namespaces of its own; while it lives the lock is held."""
        if os.geteuid() != 0:
            raise ImageError(
                "building images without a Docker engine needs root", remedy="Run it as root, or start Docker."
            )
        if shutil.which(argv[0]) is None:
            raise ImageError(
                f"{argv[0]} is not installed",
                remedy="`supportfleet local prepare` installs what is needed (on Debian: buildah and mmdebstrap).",
            )
        return await run([*_CONFINED, *argv], timeout_s=timeout_s, env=self.environment, pass_fds=(self.lock,))


@dataclass(frozen=True)
class Request:
    """An image to build, and where its archive goes; what the build is given is in workspace/given."""

    context: Context
    reference: str
    workspace: Workspace
    archive: Path
    log: Path

    @property
    def given(self) -> list[str]:
        """The secrets and the folder of wheels, as both engines take them."""
        given = self.workspace.folder("given")
        names = [name for name in ("build-environment", "ca-certificates") if (given / name).exists()]
        options = [f"--secret=id={name},src={given / name}" for name in names]
        wheels = self.workspace.folder("find-links")
        if any(wheels.iterdir()):
            options.append(f"--build-context=find-links={wheels}")
        return options

    @property
    def name(self) -> str:
        """The image's short name."""
        return self.context.source.name

    @property
    def dockerfile(self) -> Path:
        """The Dockerfile in the build context, which is its folder."""
        return self.workspace.folder("context") / self.context.source.dockerfile


class Engine(Protocol):
    """What builds images."""

    @property
    def identity(self) -> str:
        """Part of every key: the base that this engine builds on."""
        ...

    async def build(self, request: Request) -> None:
        """Write the image's archive."""
        ...


@dataclass(frozen=True)
class Docker:
    """A Docker engine, on the Dockerfile's own public base."""

    identity: str = "docker"

    async def build(self, request: Request) -> None:
        """Build with BuildKit, whose cache knows by itself which layers are unchanged, and save the image."""
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        build = ["docker", "build", "--quiet", f"--file={request.dockerfile}", f"--tag={request.reference}"]
        save = ["docker", "save", f"--output={request.archive}", request.reference]
        try:
            await run([*build, *request.given, request.dockerfile.parent], timeout_s=BUILD_TIMEOUT_S, env=environment)
            await run(save, timeout_s=BUILD_TIMEOUT_S, env=environment)
        except ProgramError as error:
            raise ImageError(
                f"{request.dockerfile.name} could not be built by docker: {error}\n",
                remedy="It needs BuildKit (docker says if its buildx plugin is missing), and to reach the base image.",
            ) from error


@dataclass(frozen=True)
class Buildah:
    """buildah with its storage in the cache, on bases from archives."""

    storage: Path
    base: Path
    build_base: Path

    @property
    def identity(self) -> str:
        """The base, named by its key."""
        return f"buildah {self.base.name}"

    async def build(self, request: Request) -> None:
        """Build the stages that the storage lacks, then the image, and write its archive."""
        request.log.unlink(missing_ok=True)
        session = _Session(self, request)
        await session.clear()
        tools, runtime = session.stages
        have = await session.images()
        if not {tools, runtime} <= have:
            bases = {"BASE_IMAGE": await session.pull(self.base), "BUILD_IMAGE": await session.pull(self.build_base)}
            if tools not in have:
                await session.bud(tools, target="tools", arguments=bases)
            await session.bud(runtime, target="runtime", arguments=bases, stages={"tools": tools})
        await session.bud(request.reference, stages={"tools": tools, "runtime": runtime})
        destination = f"docker-archive:{request.archive}:{request.reference}"
        await session.buildah("push", "--quiet", request.reference, destination)
        await session.forget_old_stages()


@dataclass(frozen=True)
class _Session:
    """The buildah commands of one build, run one after another under the lock of all builds."""

    engine: Buildah
    request: Request

    @property
    def stages(self) -> tuple[str, str]:
        """The names under which the stages that stay are in the storage; both images have the same tools."""
        context, engine = self.request.context, self.engine.identity
        tools = f"localhost/tools:{context.tools_key(engine)}"
        return tools, f"localhost/{self.request.name}-runtime:{context.dependencies_key(engine)}"

    async def buildah(self, *arguments: str | Path) -> str:
        """Run buildah on our storage and nobody else's; what it printed."""
        runroot = self.request.workspace.folder("run")
        argv = ["buildah", "--root", self.engine.storage, "--runroot", runroot, "--storage-driver=overlay", *arguments]
        try:
            output = await self.request.workspace.run(argv)
        except ProgramError as error:
            log = self.request.log.read_text(errors="replace") if self.request.log.exists() else ""
            raise ImageError(
                f"{self.request.dockerfile.name} could not be built:\n{reason(log or error.output)}\n",
                remedy=f"The whole output is in {self.request.log}; if the network is well, remove "
                f"{self.engine.storage} and try again.",
            ) from error
        return output.stdout

    async def clear(self) -> None:
        """Remove what a build that was killed left in the storage."""
        await self.buildah("rm", "--all")
        await self.buildah("rmi", "--prune", "--force")

    async def images(self) -> set[str]:
        """The names of all images in the storage."""
        return {name for image in await self._listed() for name in image.get("names") or ()}

    async def pull(self, archive: Path) -> str:
        """Take an image from an archive; its identifier."""
        return (await self.buildah("pull", "--quiet", f"docker-archive:{archive}")).strip()

    async def bud(
        self,
        tag: str,
        *,
        target: str = "",
        arguments: Mapping[str, str] = MappingProxyType({}),
        stages: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Build a target of the Dockerfile, with some of its stages taken from images."""
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options += [f"--build-context={name}=container-image://{image}" for name, image in stages.items()]
        if target:
            options.append(f"--target={target}")
        file = self.request.dockerfile
        common = ["--isolation=chroot", "--pull-never", "--format=docker", f"--logfile={self.request.log}"]
        common += [f"--file={file}", f"--tag={tag}"]
        await self.buildah("bud", *common, *options, *self.request.given, file.parent)

    async def forget_old_stages(self) -> None:
        """Keep this build's stages and the latest few others of the same kind."""
        listed = await self._listed()
        for stage in self.stages:
            repository = stage.rpartition(":")[0]
            others = [image for image in listed if _is_of(image, repository) and stage not in image["names"]]
            others.sort(key=lambda image: str(image["createdatraw"]), reverse=True)
            for image in others[KEPT_STAGES - 1 :]:
                await self.buildah("rmi", "--force", image["id"])

    async def _listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(await self.buildah("images", "--json") or "[]")
        return listed


def reason(log: str) -> str:
    """The end of a build's output without what only repeats: instructions, and every hash that would have done."""
    lines = [line for line in log.splitlines() if line.strip() and not _REPEATS.match(line)]
    return "\n".join(lines[-REASON_LINES:])


def _is_of(image: Mapping[str, Any], repository: str) -> bool:
    return any(name.rpartition(":")[0] == repository for name in image.get("names") or ())
