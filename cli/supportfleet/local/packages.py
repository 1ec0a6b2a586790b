"""Debian packages that the embedded cluster runs: which are missing, and installing them without side effects.

A package is missing if a program it is wanted for is not there, whoever provides it, or if dpkg has it half installed
(an interrupted run). Elsewhere than on Debian and its kin the same list says what to install by hand.

While apt-get runs no service is started (a `policy-rc.d` that says no) and PostgreSQL creates no database of its own
(a drop-in of `createcluster.d`); both files are put away again afterwards, and a run that was killed in between is
tidied up by the next. apt-get is never allowed to remove a package, such as Docker's containerd.io.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supportfleet.errors import SupportfleetError
from supportfleet.local import cache
from supportfleet.local.processes import ProgramError, run
from supportfleet.local.progress import Progress

# Each package, and what of it is used: programs on PATH, or files at their place.
CLUSTER_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "buildah": ("buildah",),
    "conntrack": ("conntrack",),
    "containerd": ("containerd", "ctr", "containerd-shim-runc-v2"),
    "containernetworking-plugins": tuple(
        f"/usr/lib/cni/{name}" for name in ("host-local", "loopback", "portmap", "ptp")
    ),
    "iproute2": ("ip",),
    "iptables": ("iptables", "iptables-restore"),
    "mmdebstrap": ("mmdebstrap",),
    "mount": ("mount", "umount"),
    "postgresql-15": ("/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/bin/initdb"),
    "runc": ("runc",),
    "util-linux": ("nsenter", "setpriv", "unshare"),
}
# Servers that the project's own tests run for real.
TEST_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "default-jre-headless": ("java",),
    "maven": ("mvn",),
    "prometheus": ("prometheus",),
    "rabbitmq-server": ("rabbitmq-server", "rabbitmqctl"),
    "redis-server": ("redis-server",),
}

UPDATE_TIMEOUT_S = 300.0
INSTALL_TIMEOUT_S = 1800.0
QUERY_TIMEOUT_S = 60.0
# How long another apt or dpkg (a nightly upgrade) is waited for.
LOCK_SECONDS = 300
LOCK_TRIES = 60
# Downloads (twice: archive and unpacked) of everything above on a bare system.
MEBIBYTES = 1200
INSTALL_EXPECTED_S = 60.0
UPDATE_EXPECTED_S = 10.0

# What dpkg says of a package that an interrupted run did not leave half done.
_WHOLE = frozenset({"installed", "config-files", "not-installed", "triggers-awaited", "triggers-pending"})
_MARK = "# Written by supportfleet for the time of an installation.\n"
_REFUSE_SERVICES = f"#!/bin/sh\n{_MARK}exit 101\n"
_NO_DATABASE = f"{_MARK}create_main_cluster = false\n"


class PackagesError(SupportfleetError):
    """Something the cluster needs is not installed, and could not be."""


@dataclass(frozen=True)
class System:
    """The machine that is looked at and changed; tests give another root."""

    root: Path = Path("/")
    is_root: bool = False
    interactive: bool = False
    lock_poll_s: float = LOCK_SECONDS / LOCK_TRIES

    @classmethod
    def this(cls) -> "System":
        """The machine we run on."""
        return cls(is_root=os.geteuid() == 0, interactive=sys.stdin.isatty() and sys.stderr.isatty())

    def has(self, wanted: str) -> bool:
        """Whether a program is on PATH (or in the system folders that a user's PATH often lacks), or a file exists."""
        if wanted.startswith("/"):
            return (self.root / wanted[1:]).exists()
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
        return shutil.which(wanted, path=path) is not None


async def missing(packages: Mapping[str, Sequence[str]], system: System) -> list[str]:
    """The packages of which something is not there or is half installed."""
    absent = {name for name, wanted in packages.items() if not all(map(system.has, wanted))}
    return sorted(absent | await _half_installed(packages))


async def _half_installed(packages: Iterable[str]) -> set[str]:
    if shutil.which("dpkg-query") is None:
        return set()
    # All that dpkg knows: asked for a package that it does not know, it would fail.
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"]
    output = await run(command, timeout_s=QUERY_TIMEOUT_S)
    states = dict(line.split() for line in output.stdout.splitlines())
    return {name for name in packages if states.get(name, "not-installed") not in _WHOLE}


async def ensure_packages(
    packages: Mapping[str, Sequence[str]] = CLUSTER_PACKAGES,
    *,
    progress: Progress,
    assume_yes: bool = False,
    system: System | None = None,
    ask: Callable[[str], Awaitable[bool]] | None = None,
) -> list[str]:
    """Install what is missing, after asking where a person can answer; return what was installed."""
    system = system or System.this()
    await _tidy_up(system, progress)
    wanted = await missing(packages, system)
    if not wanted:
        return []
    _require_means(wanted, packages, system)
    if system.interactive and not assume_yes:
        with progress.paused():
            agreed = await (ask or _ask)(_question(wanted))
        if not agreed:
            raise PackagesError(
                f"these packages are needed and were not installed: {', '.join(wanted)}",
                remedy=f"Run `{_command(wanted)}` yourself, or answer yes.",
            )
    async with cache.locked("packages", timeout_s=INSTALL_TIMEOUT_S, on_wait=progress.say):
        if wanted := await missing(packages, system):  # another run may have installed them meanwhile
            await _install(wanted, system, progress)
    if left := await missing(packages, system):
        raise PackagesError(
            f"apt-get installed {', '.join(wanted)}, but something of {', '.join(left)} is still missing",
            remedy=f"Run `{_command(left, '--reinstall')}` and look at its output.",
        )
    return wanted


def _require_means(wanted: Sequence[str], packages: Mapping[str, Sequence[str]], system: System) -> None:
    if shutil.which("apt-get") is None:
        needs = sorted(Path(item).name for name in wanted for item in packages[name] if not system.has(item))
        raise PackagesError(
            f"these programs are needed and missing: {', '.join(needs)}",
            remedy=f"There is no apt-get here: install what provides them (on Debian: {', '.join(wanted)}).",
        )
    if not system.is_root:
        raise PackagesError(
            f"these Debian packages are missing, and only root can install them: {', '.join(wanted)}",
            remedy=f"Run this command with sudo, or first `sudo {_command(wanted)}`.",
        )


def _question(wanted: Sequence[str]) -> str:
    return f"These Debian packages are needed: {', '.join(wanted)}. Install them (no service is started)?"


async def _ask(question: str) -> bool:
    """Ask on the terminal; waiting for the answer holds up neither other tasks nor Ctrl-C."""
    sys.stderr.write(f"{question} [Y/n] ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not answer.done():
            answer.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, read)
    try:
        return means_yes(await answer)
    finally:
        loop.remove_reader(sys.stdin)


def means_yes(line: str) -> bool:
    """Whether a typed line agrees: Enter does, the end of the input (an empty string) does not."""
    return line.endswith("\n") and line.strip().lower() in {"", "y", "yes"}


def _command(wanted: Sequence[str], *options: str) -> str:
    return " ".join(["apt-get", "install", *options, "--no-install-recommends", *wanted])


async def _install(wanted: Sequence[str], system: System, progress: Progress) -> None:
    cache.require_space(system.root / "var", MEBIBYTES, "installing Debian packages")
    with _no_services(system.root), _no_database(system.root):
        with progress.step("update the package lists", expected=UPDATE_EXPECTED_S, lane="packages"):
            try:
                await _apt("update", timeout_s=UPDATE_TIMEOUT_S, system=system)
            except PackagesError as error:  # one unreachable repository need not concern what is wanted here
                progress.say(f"{error.message}\nGoing on with the package lists that are there.")
        with progress.step("install Debian packages", expected=INSTALL_EXPECTED_S, lane="packages") as step:
            step.note(", ".join(wanted))
            await _configure_half_installed()
            options = ["--yes", "--no-install-recommends", "--no-remove"]
            await _apt("install", *options, *wanted, timeout_s=INSTALL_TIMEOUT_S, system=system)


async def _configure_half_installed() -> None:
    """Finish what an interrupted dpkg left: apt-get refuses to work before that."""
    with contextlib.suppress(ProgramError):  # what it can't configure, apt-get install names with the reason
        await run(["dpkg", "--configure", "-a", "--force-confold"], timeout_s=INSTALL_TIMEOUT_S, env=_environment())


async def _apt(action: str, *arguments: str, timeout_s: float, system: System) -> None:
    # apt waits for dpkg's lock by itself, but not for the lock of the package lists.
    settings = [f"DPkg::Lock::Timeout={LOCK_SECONDS}", "Acquire::Retries=3", "Dpkg::Options::=--force-confold"]
    command = ["apt-get", "--quiet", *(f"--option={setting}" for setting in settings), action, *arguments]
    for left in reversed(range(LOCK_TRIES)):
        try:
            await run(command, timeout_s=timeout_s, env=_environment())
        except ProgramError as error:
            if left and "Could not get lock" in error.output:
                await asyncio.sleep(system.lock_poll_s)
                continue
            raise PackagesError(
                f"apt-get {action} failed: {error.message}\n{error.output}",
                remedy="Mend that (`apt-get update && apt-get -f install` often does), and try again.",
            ) from error
        return


def _environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_MODE": "l"}


async def _tidy_up(system: System, progress: Progress) -> None:
    """Put away what an installation left that was killed: it would keep the machine's own services from starting."""
    left_over = system.is_root and (_policy(system.root).is_left_over() or _drop_in(system.root).exists())
    if left_over:
        async with cache.locked("packages", timeout_s=INSTALL_TIMEOUT_S, on_wait=progress.say):
            _policy(system.root).restore()
            _drop_in(system.root).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Policy:
    """The machine's policy for starting services, and the place where it is kept while ours is in force."""

    path: Path
    saved: Path

    def is_left_over(self) -> bool:
        return self.saved.exists() or (self.path.exists() and _MARK in self.path.read_text(errors="replace"))

    def replace(self) -> None:
        self.restore()
        if self.path.exists():
            self.path.rename(self.saved)
        self.path.write_text(_REFUSE_SERVICES)
        self.path.chmod(0o755)

    def restore(self) -> None:
        if self.saved.exists():
            self.saved.replace(self.path)
        elif self.is_left_over():
            self.path.unlink()


def _policy(root: Path) -> _Policy:
    folder = root / "usr/sbin"
    return _Policy(folder / "policy-rc.d", folder / "policy-rc.d.before-supportfleet")


def _drop_in(root: Path) -> Path:
    return root / "etc/postgresql-common/createcluster.d/supportfleet.conf"


@contextlib.contextmanager
def _no_services(root: Path) -> Iterator[None]:
    """Refuse the start of any service; a policy that the machine already has is put back afterwards."""
    policy = _policy(root)
    policy.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        policy.replace()
        yield
    finally:
        policy.restore()


@contextlib.contextmanager
def _no_database(root: Path) -> Iterator[None]:
    """Keep PostgreSQL's package from creating and starting a database of its own."""
    drop_in = _drop_in(root)
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    try:
        drop_in.write_text(_NO_DATABASE)
        yield
    finally:
        drop_in.unlink(missing_ok=True)
