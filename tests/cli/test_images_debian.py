"""The base made from Debian's packages."""

import shlex
import subprocess
import tarfile
from pathlib import Path

from supportfleet.local.images.debian import Debian

HERE = Debian("http://mirror.example", "amd64")


def test_the_key_is_over_what_the_base_is_made_of() -> None:
    """Another architecture is another base; another mirror of the same packages is not."""
    assert HERE.key == Debian("http://other.example", "amd64").key
    assert HERE.key != Debian("http://mirror.example", "arm64").key


def test_security_updates_come_in() -> None:
    """The base is made from the release, its updates and its security updates, all from the one mirror."""
    sources = [part for part in HERE.command(Path("/base"), Path("/build")) if part.startswith("deb ")]
    assert sources == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
    ]


def test_the_mirror_is_the_environments() -> None:
    """SUPPORTFLEET_DEBIAN_MIRROR names another mirror than Debian's own."""
    assert Debian.here({}).mirror == "http://deb.debian.org"
    assert Debian.here({"SUPPORTFLEET_DEBIAN_MIRROR": "https://apt.example/"}).mirror == "https://apt.example"


def hooks(base: Path, build: Path) -> list[str]:
    prefix = "--customize-hook="
    return [part.removeprefix(prefix) for part in HERE.command(base, build) if part.startswith(prefix)]


def test_the_layers_hold_nothing_of_the_host_or_of_what_is_mounted(tmp_path: Path) -> None:
    """Names, addresses, apt's files and the content of /proc and /dev are not packed; their folders are."""
    root = tmp_path / "root"
    for name in (
        "dev/null",
        "etc/apt/sources.list",
        "etc/hostname",
        "etc/passwd",
        "etc/resolv.conf",
        "proc/1/mem",
        "sys/kernel",
        "var/lib/apt/lists/lock",
        "var/log/dpkg.log",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    base, build = tmp_path / "with space.tar", tmp_path / "build.tar"
    pack_build, purge, pack_base = hooks(base, build)
    for hook in (pack_build, pack_base):  # as mmdebstrap runs them: with the folder as the first argument
        subprocess.run(["sh", "-c", hook, "exec", str(root)], check=True, timeout=30)
    for archive in (base, build):
        with tarfile.open(archive) as tar:
            files = {entry.name for entry in tar if entry.isfile()}
            folders = {entry.name for entry in tar if entry.isdir()}
        assert files == {"./etc/passwd"}
        assert {"./dev", "./proc", "./sys", "./var/log"} <= folders
        assert "./etc/apt" not in folders
    assert {"perl-base", "python3-pip-whl", "binutils-x86-64-linux-gnu"} <= set(shlex.split(purge))
