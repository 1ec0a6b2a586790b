"""What the embedded provider asks of this machine: programs to run, and its cgroups, mounts and processes.

Nothing here knows of Kubernetes. Both cgroup versions are handled alike: a cgroup is the folder of the same path in
every hierarchy that is mounted.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from supportfleet.errors import ClusterError
from supportfleet.local import processes

PROC = Path("/proc")
CONTROLLERS = frozenset({"cpu", "cpuset", "hugetlb", "io", "memory", "pids"})
# Programs of distributions are in sbin, which is not on everyone's PATH.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def run(
    *command: str | Path,
    stdin: str | BinaryIO | None = None,
    seconds: float = 60,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end, in an environment of its own, and return what it printed."""
    env = {"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/root", **(environment or {})}
    return (await processes.run(command, timeout_s=seconds, env=env, stdin=stdin)).stdout


@dataclass(frozen=True)
class Process:
    """A process that can't be mistaken for a later one of the same number."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The running process of this number; None where there is none, or only its unread exit code."""
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command name, in parentheses, may hold anything; what follows the last one is numbers.
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(fields[18]))

    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def resident_mebibytes(self) -> int:
        """How much memory it holds."""
        try:
            pages = int((PROC / str(self.pid) / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20

    def started_at(self) -> float:
        """When it was started, in seconds since 1970."""
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + self.start / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process and to no other."""
        send(self.pid, number, lambda _: self.alive())

    async def gone(self, seconds: float) -> bool:
        """Wait for its end."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True


def send(pid: int, number: signal.Signals, still_meant: Callable[[int], bool]) -> None:
    """Signal a process if, once it is held and its number can't be reused, it is still the one that is meant."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if still_meant(pid):
            signal.pidfd_send_signal(held, number)
    except ProcessLookupError:
        return
    finally:
        os.close(held)


def all_processes() -> Iterator[int]:
    """The number of every process."""
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    path: Path
    kind: str
    options: frozenset[str]


def mounts(mountinfo: str | None = None) -> list[Mount]:
    """What is mounted, in the order of mounting."""
    text = (PROC / "self/mountinfo").read_text() if mountinfo is None else mountinfo
    return [_mount(line) for line in text.splitlines()]


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    # Spaces and such in paths are written as octal escapes.
    path = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
    kind, _source, options = after.split(" ", 2)
    return Mount(Path(path), kind, frozenset(options.split(",")))


class Cgroups:
    """The cgroup hierarchies of this machine."""

    def __init__(self, mounted: Iterable[Mount]) -> None:
        self.v1 = [mount for mount in mounted if mount.kind == "cgroup"]
        self.v2 = [mount for mount in mounted if mount.kind == "cgroup2"]

    @classmethod
    def here(cls) -> "Cgroups":
        """Those that are mounted now."""
        return cls(mounts())

    @property
    def roots(self) -> list[Path]:
        """The folder of each hierarchy."""
        return [mount.path for mount in (*self.v2, *self.v1)]

    @property
    def tracking(self) -> Path:
        """The hierarchy that the processes of the control plane join, for `down` to find them and their children."""
        for mount in self.v1:
            if "pids" in mount.options:
                return mount.path
        if self.roots:
            return self.roots[0]
        raise ClusterError("no cgroup hierarchy is mounted", remedy="Mount cgroup2 on /sys/fs/cgroup.")

    def make(self, cgroup: str) -> None:
        """Create a cgroup in every hierarchy."""
        for mount in (*self.v2, *self.v1):
            for folder in reversed([Path(cgroup), *Path(cgroup).parents][:-1]):
                if mount.kind == "cgroup2":
                    _delegate((mount.path / folder).parent)
                (mount.path / folder).mkdir(exist_ok=True)
                if "cpuset" in mount.options:
                    _inherit_cpuset(mount.path / folder)

    def processes(self, cgroup: str) -> set[int]:
        """Every process in the cgroup and below it, in any hierarchy."""
        return {pid for folder in self._folders(cgroup) for pid in _members(folder)}

    def holds(self, cgroup: str, pid: int) -> bool:
        """Whether the process is in the cgroup or below it, in any hierarchy."""
        try:
            lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return any(f"{line.split(':', 2)[2]}/".startswith(f"/{cgroup}/") for line in lines)

    def remove(self, cgroup: str) -> None:
        """Remove a cgroup that holds no process any more, with all below it."""
        for folder in self._folders(cgroup):
            folder.rmdir()

    def exists(self, cgroup: str) -> bool:
        """Whether any hierarchy has it."""
        return any((root / cgroup).is_dir() for root in self.roots)

    def _folders(self, cgroup: str) -> list[Path]:
        """The cgroup's folders in all hierarchies, children before parents."""
        walks = (os.walk(root / cgroup, topdown=False) for root in self.roots)
        return [Path(folder) for walk in walks for folder, _, _ in walk]


def _members(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:  # removed meanwhile, or a threaded cgroup, whose processes its parent names
        return []


def _delegate(folder: Path) -> None:
    """In version 2 a cgroup has the controllers that its parent gives; the kubelet asks for those of its pods."""
    has, gives = ((folder / f"cgroup.{name}").read_text().split() for name in ("controllers", "subtree_control"))
    wanted = [f"+{name}" for name in has if name in CONTROLLERS and name not in gives]
    if wanted:
        (folder / "cgroup.subtree_control").write_text(" ".join(wanted))


def _inherit_cpuset(folder: Path) -> None:
    """A new cpuset of version 1 has no CPU and no memory, and nothing can join it."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / setting).read_text().strip():
            (folder / setting).write_text((folder.parent / setting).read_text())
