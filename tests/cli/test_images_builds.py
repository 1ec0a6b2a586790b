"""Having images: what is built when, with small programs for buildah, mmdebstrap and docker on PATH."""

import asyncio
import json
import os
import signal
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from supportfleet.local import cache, images
from supportfleet.local.images import builds
from supportfleet.local.images.sources import SOURCES
from supportfleet.local.progress import Progress

# Each notes its arguments. buildah keeps its storage's images in a file; a hook may fail or wait.
FAKES = {
    "setpriv": 'shift 2; exec "$@"',
    "unshare": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "mmdebstrap": """
echo "mmdebstrap" >> "$FAKE/log"
if [ -f "$FAKE/mmdebstrap.hook" ]; then . "$FAKE/mmdebstrap.hook"; fi
for argument in "$@"; do
  case "$argument" in
  --customize-hook=tar*)
    archive=$(echo "$argument" | sed 's/.* -cf \\(.*\\) \\.$/\\1/')
    tar -C "$FAKE" -cf "$archive" log ;;
  esac
done""",
    "buildah": """
while [ "${1#--}" != "$1" ]; do
  case "$1" in --root) mkdir -p "$2"; images=$2/images; shift 2 ;; --runroot) shift 2 ;; *) shift ;; esac
done
touch "$images"
echo "buildah $*" >> "$FAKE/log"
if [ -f "$FAKE/buildah.hook" ]; then . "$FAKE/buildah.hook"; fi
case "$1" in
images)
  number=0
  echo '['
  while read -r name; do
    number=$((number + 1))
    [ $number = 1 ] || echo ,
    echo "{\\"id\\": \\"$name\\", \\"names\\": [\\"$name\\"], \\"createdatraw\\": \\"$(printf %04d $number)\\"}"
  done < "$images"
  echo ']' ;;
pull) echo "id-of-$(basename "$3")" ;;
bud)
  for argument in "$@"; do
    case "$argument" in
    --tag=localhost/*) echo "${argument#--tag=}" >> "$images" ;;
    --secret=id=build-environment*) cat "${argument##*src=}" > "$FAKE/build-environment" ;;
    esac
  done ;;
push) echo "an archive" > "$(echo "$4" | cut -d: -f2)" ;;
rmi) grep -vxFe "$3" "$images" > "$images.new" || true; mv "$images.new" "$images" ;;
esac""",
    "docker": """
echo "docker $*" >> "$FAKE/log"
[ -f "$FAKE/docker.engine" ] || { echo "Cannot connect to the Docker daemon" >&2; exit 1; }
if [ "$1" = build ] && [ -f "$FAKE/docker.fail" ]; then echo "buildx component is missing" >&2; exit 1; fi
case "$1" in save) echo "an archive" > "${2#--output=}" ;; esac""",
}


@dataclass(frozen=True)
class Machine:
    """A checkout, a cache, and what the programs were asked for."""

    checkout: Path
    fake: Path

    @property
    def images(self) -> Path:
        return cache.root() / "images"

    def calls(self, *prefix: str) -> list[str]:
        """The lines of the log that start so, and forget them."""
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not prefix or line.startswith(prefix)]

    def hook(self, program: str, script: str) -> None:
        (self.fake / f"{program}.hook").write_text(script)

    def unhook(self, program: str) -> None:
        (self.fake / f"{program}.hook").unlink()

    def change(self, name: str) -> None:
        path = self.checkout / name
        path.write_text(path.read_text() + "\n# changed\n")

    async def build(self, *names: str) -> dict[str, Path]:
        with Progress(console=Console(file=StringIO()), durations=self.fake / "durations.json") as progress:
            return await images.build(names, progress=progress, repository=self.checkout)


# What buildah logs when a file has another hash than any of the many that its pin lists.
FAIL = """
if [ "$1" = bud ]; then
  for argument in "$@"; do case "$argument" in --logfile=*) log=${argument#--logfile=} ;; esac; done
  printf 'Hash mismatch for numpy\\n  Expected:\\n' > "$log"
  for number in $(seq 60); do echo "    sha256:$number" >> "$log"; done
  echo 'Error: building at STEP "RUN pip install": exit status 1' >> "$log"
  exit 1
fi
"""
CODE = "agent_runtime/supportfleet_runtime/__init__.py"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    fake, checkout = tmp_path / "fake", tmp_path / "checkout"
    programs = fake / "bin"
    programs.mkdir(parents=True)
    for name, script in FAKES.items():
        (programs / name).write_text(f"#!/bin/sh\nset -eu\n{script}\n")
        (programs / name).chmod(0o755)
    for name in ("LICENSE", "README.md", "constraints.txt", CODE, "operator/supportfleet_operator/__init__.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(name)
    (checkout / "pyproject.toml").write_text('[project]\nname = "supportfleet"\n')
    for source in SOURCES.values():
        (checkout / source.dockerfile).write_text(f"# {source.name}\nFROM scratch AS tools\nRUN x\n\nFROM tools\n")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(fake))
    monkeypatch.setenv("SUPPORTFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield Machine(checkout, fake)
    assert not (tmp_path / "cache" / "images" / "work").exists(), "a build left its work folder"


async def test_an_image_is_built_on_the_base_and_only_once(machine: Machine) -> None:
    """The first build makes the base, both lasting stages and the image; the second time nothing is run."""
    made = await machine.build("agent")
    assert made["agent"].read_text() == "an archive\n"
    assert made["agent"].parent == machine.images / "agent"
    calls = machine.calls("mmdebstrap", "buildah bud", "buildah push")
    assert [call.split()[0:2] for call in calls] == [["mmdebstrap"], *[["buildah", "bud"]] * 3, ["buildah", "push"]]
    assert await machine.build("agent", "base") == {**made, "base": next((machine.images / "base").iterdir())}
    assert machine.calls("mmdebstrap", "buildah") == []


async def test_stages_are_built_on_the_bases_of_the_archives(machine: Machine) -> None:
    """The bases go in as build arguments by their identifiers, each finished stage as a build context."""
    await machine.build("agent")
    key = next((machine.images / "base").iterdir()).name
    tools, runtime, image = machine.calls("buildah bud")
    for stage in (tools, runtime):
        assert f"--build-arg=BASE_IMAGE=id-of-{key}" in stage
        assert "--pull-never" in stage
    assert "--target=tools" in tools
    assert "--target=runtime" in runtime
    for later in (runtime, image):
        assert "--build-context=tools=container-image://localhost/tools:" in later
    assert "--build-context=runtime=container-image://localhost/agent-runtime:" in image
    assert "--target" not in image


async def test_a_change_of_code_rebuilds_the_last_layer_only(machine: Machine) -> None:
    """With the dependencies unchanged one build runs, on the stages that stayed in the storage."""
    before = await machine.build("agent")
    machine.calls()
    machine.change(CODE)
    after = await machine.build("agent")
    (build,) = machine.calls("mmdebstrap", "buildah bud")
    assert "--target" not in build
    assert before["agent"] != after["agent"]


async def test_building_code_is_a_step_of_its_own(machine: Machine) -> None:
    """The time that a change of code takes is not taken for the time that the whole image takes, nor the reverse."""
    durations = machine.fake / "durations.json"
    await machine.build("agent")
    machine.change(CODE)
    await machine.build("agent")
    assert {"image supportfleet/agent", "code of image supportfleet/agent"} <= set(json.loads(durations.read_text()))


async def test_changed_pins_rebuild_the_dependencies(machine: Machine) -> None:
    """A changed constraints.txt makes both stages again, on the same base."""
    await machine.build("agent")
    machine.calls()
    machine.change("constraints.txt")
    await machine.build("agent")
    assert len(machine.calls("mmdebstrap", "buildah bud")) == len(["tools", "runtime", "image"])


async def test_the_second_image_is_built_with_the_tools_of_the_first(machine: Machine) -> None:
    """What wheels are installed with is made once for both."""
    await machine.build("agent")
    machine.calls()
    await machine.build("operator")
    assert [" --target=" in call for call in machine.calls("mmdebstrap", "buildah bud")] == [True, False]


async def test_a_failed_build_leaves_nothing_and_says_why(machine: Machine) -> None:
    """The error carries the end of buildah's output and a remedy, no archive appears, and the next try starts anew."""
    machine.hook("buildah", FAIL)
    with pytest.raises(images.ImageError) as caught:
        await machine.build("agent")
    log = machine.images / "agent.log"
    for part in ("Dockerfile.agent could not be built:\nHash mismatch for numpy\n  Expected:\n", str(log)):
        assert part in str(caught.value)
    assert "sha256:3" not in str(caught.value)
    assert "sha256:3" in log.read_text()
    assert not list(machine.images.glob("agent/*"))
    machine.unhook("buildah")
    assert (await machine.build("agent"))["agent"].exists()


async def test_an_unreachable_mirror_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """When Debian's packages can't be had, the message names the mirror and how to use another."""
    monkeypatch.setenv("SUPPORTFLEET_DEBIAN_MIRROR", "http://gone.example")
    machine.hook("mmdebstrap", "echo 'E: Failed to fetch' >&2; exit 1")
    with pytest.raises(images.ImageError) as caught:
        await machine.build("base")
    for part in ("E: Failed to fetch", "http://gone.example", "SUPPORTFLEET_DEBIAN_MIRROR"):
        assert part in str(caught.value)
    assert not list(machine.images.glob("ba*/*"))


async def test_two_builds_at_once_build_once(machine: Machine) -> None:
    """The second waits for the first, and then finds the image made."""
    machine.hook("buildah", 'if [ "$1" = bud ]; then sleep 0.1; fi')
    first, second = await asyncio.gather(machine.build("agent"), machine.build("agent"))
    assert first == second
    assert len(machine.calls("buildah push", "mmdebstrap")) == len(["push", "mmdebstrap"])


BUILD = """
import asyncio, sys
from pathlib import Path
from supportfleet.local import images
from supportfleet.local.progress import Progress
import os
os.geteuid = lambda: 0
with Progress() as progress:
    asyncio.run(images.build(["agent"], progress=progress, repository=Path(sys.argv[1])))
"""


async def test_what_a_killed_build_left_is_removed_by_the_next(machine: Machine) -> None:
    """After SIGKILL in mid-build no archive is there, and the next build clears its files and finishes."""
    await machine.build("base")
    # As nothing confines the fake program it outlives its parent, with the lock, until the test says go.
    os.mkfifo(machine.fake / "started")
    os.mkfifo(machine.fake / "go")
    machine.hook("buildah", 'if [ "$1" = bud ]; then echo > "$FAKE/started"; cat "$FAKE/go"; exit 1; fi')
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", BUILD, machine.checkout)
    async with asyncio.timeout(60):
        await asyncio.to_thread((machine.fake / "started").read_text)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    left = machine.images / "work"
    assert left.is_dir()
    assert not list(machine.images.glob("agent/*"))
    (left / "half-written.tar").touch()
    machine.hook("buildah", '[ ! -e "$SUPPORTFLEET_CACHE/images/work/half-written.tar" ]')
    await asyncio.to_thread((machine.fake / "go").write_text, "")
    machine.calls()
    assert (await machine.build("agent"))["agent"].exists()
    assert len(machine.calls("buildah rm --all", "buildah rmi --prune")) == len(["containers", "images"])


async def test_old_archives_and_stages_go(machine: Machine) -> None:
    """However often pins change, each image keeps a few archives and stages, the current ones among."""
    for _ in range(6):
        machine.change("constraints.txt")
        made = await machine.build("agent")
    assert len(list(machine.images.glob("agent/*.tar"))) == builds.KEPT_ARCHIVES
    assert made["agent"].exists()
    stages = (machine.images / "storage" / "images").read_text().split()
    assert len(stages) == 2 * len(["tools", "runtime"])
    machine.calls()
    machine.change(CODE)
    await machine.build("agent")
    assert len(machine.calls("buildah bud")) == 1, "the current stages were removed"


async def test_stages_in_use_outlive_newer_ones_of_failed_builds(machine: Machine) -> None:
    """Tools that were made for pins that turned out wrong do not push out those of the pins that are in use."""
    await machine.build("agent")
    pins = (machine.checkout / "constraints.txt").read_text()
    machine.hook("buildah", 'case "$*" in bud*--target=runtime*) exit 1 ;; esac')
    for _ in range(3):
        machine.change("constraints.txt")
        with pytest.raises(images.ImageError):
            await machine.build("agent")
    machine.unhook("buildah")
    (machine.checkout / "constraints.txt").write_text(pins)
    for _ in range(2):
        machine.change(CODE)
        machine.calls()
        await machine.build("agent")
        assert len(machine.calls("buildah bud")) == 1


async def test_the_archive_that_was_unused_for_longest_goes_first(machine: Machine) -> None:
    """Coming back to an earlier state of the code finds its archive, and keeps it when newer ones are pruned."""
    first = (machine.checkout / CODE).read_text()
    archives = []
    for _ in range(builds.KEPT_ARCHIVES):
        archives.append((await machine.build("agent"))["agent"])
        machine.change(CODE)
    newest = (machine.checkout / CODE).read_text()
    (machine.checkout / CODE).write_text(first)
    assert (await machine.build("agent"))["agent"] == archives[0]
    (machine.checkout / CODE).write_text(newest)
    await machine.build("agent")
    assert [archive.exists() for archive in archives] == [True, False, True]


async def test_the_network_reaches_the_build_as_secrets_only(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index's password is in the secret file, and in no argument, which the image's history would keep."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:pa55word@index.example/simple")
    await machine.build("agent")
    assert "pa55word" in (machine.fake / "build-environment").read_text()
    calls = machine.calls("buildah bud")
    assert all("--secret=id=build-environment,src=" in call for call in calls)
    assert "pa55word" not in "".join(calls)


async def test_docker_is_used_where_an_engine_answers(machine: Machine) -> None:
    """Then the Dockerfile's own base is used, nothing is bootstrapped, and the image is saved as an archive."""
    with_buildah = await machine.build("agent")
    machine.calls()
    (machine.fake / "docker.engine").touch()
    with_docker = await machine.build("agent")
    calls = machine.calls()
    assert [call.split()[1] for call in calls] == ["version", "build", "save"]
    assert "--tag=docker.io/supportfleet/agent:dev" in calls[1]
    assert "BASE_IMAGE" not in calls[1]
    assert with_docker["agent"].exists()
    assert with_docker != with_buildah
    (machine.fake / "docker.fail").touch()
    with pytest.raises(images.ImageError, match=r"(?s)could not be built by docker.*buildx component is missing"):
        await machine.build("operator")


async def test_what_is_missing_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mmdebstrap, or without root, the message says so and what to do."""
    monkeypatch.setenv("PATH", f"{machine.fake}/bin")
    (machine.fake / "bin" / "mmdebstrap").unlink()
    with pytest.raises(images.ImageError, match=r"mmdebstrap is not installed.*supportfleet local prepare"):
        await machine.build("agent")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(images.ImageError, match="needs root"):
        await machine.build("agent")


async def test_names_are_understood_as_people_write_them(machine: Machine, tmp_path: Path) -> None:
    """An image is known by its short name, its name and its full reference; others are refused with the known ones."""
    with Progress(console=Console(file=StringIO()), durations=tmp_path / "durations.json") as progress:
        archives = {
            await images.archive_of(name, progress=progress)
            for name in ("base", "supportfleet/base:dev", "docker.io/supportfleet/base:dev")
        }
        assert len(archives) == 1
        with pytest.raises(images.ImageError, match=r"nginx:1 is neither .*supportfleet/agent:dev"):
            await images.archive_of("nginx:1", progress=progress)


async def test_the_base_comes_as_an_importable_archive(machine: Machine) -> None:
    """The base's archive names its reference in a cluster; the one that images are built in stays local."""
    base = (await machine.build("base"))["base"]
    names = {}
    for folder in ("base", "build"):
        archive = machine.images / folder / base.name
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            names[folder] = json.load(manifest)[0]["RepoTags"] if manifest else None
    assert names == {"base": ["docker.io/supportfleet/base:dev"], "build": ["localhost/build:dev"]}
