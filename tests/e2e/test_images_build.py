"""The real images, built here: what is in them, who they run as, what they refuse to be built from."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from rich.console import Console

from supportfleet.local import cache, images
from supportfleet.local.images.sources import SOURCES
from supportfleet.local.progress import Progress

ROOT = Path(__file__).parents[2]
CANARY = "supportfleet-build-canary"
PACKAGES = {"agent": "supportfleet_runtime", "operator": "supportfleet_operator"}
COMMANDS = {"agent": "supportfleet-runtime", "operator": "supportfleet-operator"}
# Mebibytes of all layers, uncompressed. A library that grows by a tenth is fine; a compiler that slips in is not.
LARGEST = {"pause": 3, "base": 80, "operator": 165, "agent": 290}
BUILD_TIMEOUT = 1800
# Libraries of the extra `train`, which the agent's image does without.
TRAINING = {"onnx", "scipy", "sklearn"}
IMPORT_ALL = """
import importlib, importlib.metadata, importlib.util, json, pkgutil, re, sys
package, *libraries = importlib.import_module(sys.argv[1]), *sys.argv[2:]
brought = {library: [] for library in libraries}
for module, distributions in importlib.metadata.packages_distributions().items():
    for library in {re.sub("[-_.]+", "-", name).lower() for name in distributions} & brought.keys():
        if importlib.util.find_spec(module):  # tests that came along are left out of the image
            brought[library].append(importlib.import_module(module))
assert all(brought.values()), brought
missing = {}
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if ".migrations." in module.name:
        continue  # scripts that Alembic runs
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing[module.name] = error.name.partition(".")[0]
print(json.dumps(missing))
"""

pytestmark = pytest.mark.timeout(BUILD_TIMEOUT)


@pytest.fixture(scope="module", autouse=True)
def _builder(unavailable: Callable[[str, str], NoReturn]) -> None:
    if os.geteuid() != 0:
        unavailable("root", "building and running images here needs it")
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None:
            unavailable(program, "run 'supportfleet local prepare'")


class Run(Protocol):
    def __call__(self, *command: str, read_only: bool = True) -> subprocess.CompletedProcess[str]: ...


def build(*names: str, repository: Path = ROOT) -> dict[str, Path]:
    with Progress(console=Console(file=StringIO())) as progress:
        return asyncio.run(images.build(names, progress=progress, repository=repository))


def checkout(folder: Path, edit: Callable[[str], str], file: str) -> Path:
    """A copy of what the operator's image is made of, with one file edited."""
    SOURCES["operator"].read(ROOT).stage(folder)
    path = folder / file
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before
    return folder


@pytest.fixture(scope="module")
def archives() -> dict[str, Path]:
    return build(*images.NAMES)


def configuration(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            file = tar.extractfile(name)
            assert file
            return json.load(file)

        found: dict[str, Any] = read(read("manifest.json")[0]["Config"])
    return found


def layer_entries(archive: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        for layer in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                yield from files


@pytest.fixture(scope="module", params=sorted(SOURCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rootfs(name: str, archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's files, its layers unpacked one over the other."""
    folder = tmp_path_factory.mktemp(name)
    with tarfile.open(archives[name]) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest
        for layer in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                files.extractall(folder, filter="tar")
    return folder


@pytest.fixture(scope="module")
def run(name: str, rootfs: Path, archives: dict[str, Path]) -> Run:
    """Run a command as a pod would: as the image's user, in its environment, with only /tmp writable if so asked."""
    config = configuration(archives[name])["config"]

    def run(*command: str, read_only: bool = True) -> subprocess.CompletedProcess[str]:
        mounts = f"mount --bind {rootfs} {rootfs}"
        if read_only:
            mounts += f"; mount -o remount,bind,ro {rootfs}; mount -t tmpfs -o mode=1777 tmpfs {rootfs}/tmp"
        enter = ["chroot", f"--userspec={config['User']}", str(rootfs), "/usr/bin/env", "-i", *config["Env"]]
        script = ["unshare", "--mount", "sh", "-euc", f'{mounts}; exec "$@"', "sh", *enter, *command]
        return subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)

    return run


@pytest.mark.parametrize("image", images.NAMES)
def test_images_are_small(archives: dict[str, Path], image: str) -> None:
    """No image is larger than what it needs to carry."""
    assert archives[image].stat().st_size < LARGEST[image] * 2**20


def test_the_image_says_how_it_runs(name: str, archives: dict[str, Path]) -> None:
    """Its user, command, stop signal and labels are those of the Dockerfile, and its reference the one pods name."""
    config = configuration(archives[name])["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == [COMMANDS[name]]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == f"supportfleet {name}"
    with tarfile.open(archives[name]) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest
        assert json.load(manifest)[0]["RepoTags"] == [f"docker.io/supportfleet/{name}:dev"]


def test_it_starts_as_nobody_on_a_read_only_root(name: str, run: Run) -> None:
    """The entry point runs as user 65532 where nothing but /tmp can be written to."""
    done = run(COMMANDS[name], "--help")
    assert done.returncode == 0, done.stderr
    assert COMMANDS[name] in done.stdout
    for command in ("sync-model", "verify-model") if name == "agent" else ("run",):
        assert run(COMMANDS[name], command, "--help").returncode == 0
    assert run("id", "-u").stdout.strip() == "65532"


def test_every_module_of_ours_finds_what_it_imports(name: str, run: Run) -> None:
    """Neither our modules nor the libraries we require miss anything, but what only training needs."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][name]
    libraries = [re.split(r"[^\w-]", requirement)[0].lower() for requirement in extra]
    done = run("python3", "-c", IMPORT_ALL, PACKAGES[name], *libraries)
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    assert set(missing.values()) <= (TRAINING if name == "agent" else set())
    assert not any(run("python3", "-c", f"import {library}").returncode == 0 for library in TRAINING)


def test_only_the_declared_folders_can_be_written_to(name: str, run: Run) -> None:
    """Even without a read-only root the user can change none of the image's files, only its data folders."""
    found = set(run("find", "/", "-xdev", "-writable", "!", "-type", "l", read_only=False).stdout.split())
    data = {"/models", "/var/lib/supportfleet"} if name == "agent" else set()
    assert found - {"/tmp", "/var/tmp", "/run/lock"} == data


def test_starting_compiles_nothing(name: str, run: Run) -> None:
    """Python finds bytecode for everything it imports at the start: pods do not pay for compiling it each time."""
    done = run("python3", "-v", f"/opt/supportfleet/bin/{COMMANDS[name]}", "--help")
    assert done.returncode == 0
    assert "# code object from '/opt/supportfleet" in done.stderr
    assert re.findall(r"# code object from '(\S+\.py)'", done.stderr) == []


def test_nothing_of_the_build_stays_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies, indexes, wheel folders and the CA bundle of the build are in no layer, configuration or history."""
    bundle = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    (tmp_path / f"{CANARY}.crt").write_text(f"# {CANARY}\n{bundle.read_text()}")
    wheels = tmp_path / f"{CANARY}-wheels"
    wheels.mkdir()
    (wheels / "supportfleet_build_canary-1-py3-none-any.whl").write_text(CANARY)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / f"{CANARY}.crt"))
    monkeypatch.setenv("NO_PROXY", f"{CANARY}.invalid,{os.environ.get('NO_PROXY', '')}")
    monkeypatch.setenv("UV_INDEX_CANARY_PASSWORD", CANARY)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    repository = checkout(tmp_path / "checkout", lambda text: f"{text}# {CANARY}\n", "Dockerfile.operator")
    archive = build("operator", repository=repository)["operator"]
    content = archive.read_bytes()
    assert content.count(CANARY.encode()) == 0
    assert content.count(str(cache.root()).encode()) == 0
    # Files that the engine puts there for the time of the build, from the host's.
    for entry in layer_entries(archive):
        assert entry.size == 0 or entry.name.strip("./") not in {"etc/hostname", "etc/hosts", "etc/resolv.conf"}


def _wrong_hash(package: str) -> Callable[[str], str]:
    def edit(constraints: str) -> str:
        block = re.search(rf"^{package}==(.|\n)*?[^\\]\n", constraints, re.MULTILINE)
        assert block
        return constraints.replace(block[0], re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", block[0]))

    return edit


def _unlisted(package: str) -> Callable[[str], str]:
    return lambda constraints: re.sub(rf"(?m)^{package}==(.|\n)*?[^\\]\n", "", constraints)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_wrong_hash("attrs"), r"[Hh]ash mismatch(.|\n)*attrs"),
        (_wrong_hash("hatchling"), r"[Hh]ash mismatch(.|\n)*hatchling"),
        (_wrong_hash("uv"), r"(?i)hashes(.|\n)*uv"),
        (_unlisted("attrs"), r"must have a hash(.|\n)*attrs"),
    ],
    ids=["library", "build-backend", "installer", "unlisted"],
)
def test_a_file_with_another_hash_is_refused(tmp_path: Path, edit: Callable[[str], str], reason: str) -> None:
    """Whatever is downloaded has a hash that constraints.txt lists, or the build fails and says which it was."""
    repository = checkout(tmp_path / "checkout", edit, "constraints.txt")
    before = set((cache.root() / "images" / "operator").iterdir())
    with pytest.raises(images.ImageError) as caught:
        build("operator", repository=repository)
    assert re.search(reason, str(caught.value))
    assert set((cache.root() / "images" / "operator").iterdir()) == before


def test_a_build_leaves_no_mount_and_no_process(archives: dict[str, Path]) -> None:
    """After building nothing of buildah's storage is mounted here, and no buildah runs on it."""
    assert archives
    storage = str(cache.root() / "images")
    assert storage not in Path("/proc/mounts").read_text()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        assert f"--root {storage}" not in command
