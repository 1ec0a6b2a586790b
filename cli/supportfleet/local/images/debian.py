"""The base of the images on a machine without a registry: a small Debian with Python, made from Debian's packages.

mmdebstrap installs an explicit list of packages into an empty folder, each with its own installation scripts, and runs
in namespaces of its own, so that a killed run leaves no mount behind. The result is packed twice: as the *build* image,
where pip's wheels, binutils and perl are there, and, after those are purged, as the *base* that pods run.
"""

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supportfleet.local import cache

SUITE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org"

# A shell, coreutils and what stands beside them in every Debian; Python; certificates; the C++ library of wheels.
_PACKAGES = (
    "base-files base-passwd ca-certificates coreutils dash dpkg findutils grep gzip hostname libc-bin libstdc++6 "
    "python3 sed tar"
)
# What wheels are installed and shrunk with.
_BUILD_PACKAGES = "binutils python3-venv"
# What Debian's installation scripts run, and nothing afterwards.
_SETUP_PACKAGES = "debconf diffutils perl-base"
# The above, and what came with them and is needed by nothing that stays.
_PURGED = (
    "binutils binutils-common libbinutils libctf-nobfd0 libctf0 libgprofng0 libjansson4 python3-distutils "
    "python3-lib2to3 python3-pip-whl python3-setuptools-whl python3-venv python3.11-venv "
    "debconf diffutils libdebconfclient0 openssl perl-base"
)
_UNREAD = ("doc", "info", "lintian", "locale", "man")
# The host's names, the mirror's address, and what only apt would read.
_NOT_PACKED = (
    "./dev/*",
    "./etc/apt",
    "./etc/dpkg/dpkg.cfg.d/*",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./proc/*",
    "./sys/*",
    "./tmp/*",
    "./var/cache/apt",
    "./var/cache/debconf",
    "./var/lib/apt",
    "./var/log/*",
)
# Raised when the way of packing changes.
_FORMAT = "1"


@dataclass(frozen=True)
class Debian:
    """A base to make: for this machine's architecture, from a mirror."""

    mirror: str
    architecture: str

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None) -> "Debian":
        """What suits this machine; SUPPORTFLEET_DEBIAN_MIRROR names another mirror than Debian's own."""
        environ = os.environ if environ is None else environ
        mirror = environ.get("SUPPORTFLEET_DEBIAN_MIRROR", "").rstrip("/") or DEFAULT_MIRROR
        machine = platform.machine()
        return cls(mirror, {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine))

    @property
    def key(self) -> str:
        """The key over everything the base is made of; where Debian's packages come from does not matter."""
        return cache.digest(_FORMAT, self.architecture, *self.command(Path("base"), Path("build"), mirror=""))

    def command(self, base: Path, build: Path, *, mirror: str | None = None) -> list[str]:
        """The mmdebstrap command that packs the two layers."""
        mirror = self.mirror if mirror is None else mirror
        multiarch = {"amd64": "x86-64", "arm64": "aarch64"}.get(self.architecture, self.architecture)
        purged = f"{_PURGED} binutils-{multiarch}-linux-gnu"
        hooks = (
            _pack(build),
            # By force: base-passwd and ca-certificates name some of these for installation scripts that have run.
            f'chroot "$1" dpkg --purge --force-depends --force-remove-essential {purged}',
            _pack(base),
        )
        return [
            "mmdebstrap",
            "--mode=root",
            "--variant=custom",
            "--format=null",
            f"--architectures={self.architecture}",
            f"--include={','.join(f'{_PACKAGES} {_BUILD_PACKAGES} {_SETUP_PACKAGES}'.split())}",
            *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _UNREAD),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=path-exclude=/usr/lib/*-linux-gnu/gconv/*",
            *(f"--customize-hook={hook}" for hook in hooks),
            SUITE,
            "-",
            f"deb {mirror}/debian {SUITE} main",
            f"deb {mirror}/debian {SUITE}-updates main",
            f"deb {mirror}/debian-security {SUITE}-security main",
        ]


def _pack(layer: Path) -> str:
    """A hook that packs the folder as it is now, and nothing of what is mounted in it."""
    excluded = " ".join(shlex.quote(f"--exclude={pattern}") for pattern in _NOT_PACKED)
    return f'tar -C "$1" --one-file-system --numeric-owner --sort=name {excluded} -cf {shlex.quote(str(layer))} .'
