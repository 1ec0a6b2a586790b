"""Processes that outlive the command that started them: started, found again, stopped.

A small shell program joins the process's own cgroup, records its number and start time, and only then becomes the
program. So there is no moment, not even when this process is killed, at which something runs that is neither recorded
nor in the cluster's cgroup; and a number that another process has got since is never taken for ours.
"""

import asyncio
import hashlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supportfleet.errors import DaemonError
from supportfleet.local.embedded.host import SEARCH_PATH, Cgroups, Process, run, send
from supportfleet.local.embedded.layout import NETNS_ROOT, Layout

LAUNCH_SECONDS = 20
STOP_SECONDS = 10

Check = Callable[[], Awaitable[bool]]

# Field 22 of /proc/PID/stat is the start time: the 20th after the command name.
LAUNCH = """
exec 2>&1
set -eu
record=$1 procs=$2 log=$3 digest=$4
shift 4
start() { shift 19; echo "$1"; }
stat=$(cat "/proc/$$/stat")
started=$(start ${stat##*) })
echo $$ > "$procs"
echo "$$ $started $digest" > "$record.new"
mv "$record.new" "$record"
exec >> "$log" 2>&1 < /dev/null
exec "$@"
"""


JOIN = 'echo $$ > "$1"; shift; exec "$@"'


@dataclass(frozen=True)
class Daemon:
    """What to run, and where."""

    name: str
    command: tuple[str, ...]
    # The namespaces it runs in; without, this machine's.
    network: str = ""
    mounts: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    # A change of any of these asks for a restart.
    reads: tuple[Path, ...] = ()
    # Its children go on without it, and it finds them again (containerd and its shims).
    keeps_children: bool = False
    # What asks it to end.
    ends_on: signal.Signals = signal.SIGTERM

    @property
    def entering(self) -> tuple[str, ...]:
        """The command inside its namespaces.

        `ip netns exec` would remount /sys and hide the cgroups, without which a kubelet does not start.
        """
        into = [f"--net={NETNS_ROOT / self.network}"] if self.network else []
        into += [f"--mount={self.mounts}"] if self.mounts else []
        return ("nsenter", *into, "--", *self.command) if into else self.command

    def digest(self) -> str:
        """Of all that makes it what it is."""
        parts = [*self.entering, *(f"{key}={value}" for key, value in sorted(self.environment.items()))]
        hasher = hashlib.sha256("\0".join(parts).encode())
        for path in self.reads:
            hasher.update(path.read_bytes() if path.exists() else b"")
        return hasher.hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """What was started."""

    process: Process
    digest: str


class Daemons:
    """The processes of one cluster."""

    def __init__(self, layout: Layout, cgroups: Cgroups) -> None:
        self.layout = layout
        self.cgroups = cgroups
        self.wanted: set[str] = set()

    def cgroup(self, name: str) -> str:
        """Each has its own, so that it takes its children along."""
        return f"{self.layout.cgroup}/daemons/{name}"

    def log(self, name: str) -> Path:
        """Where its output goes."""
        return self.layout.logs / f"{name}.log"

    def record(self, name: str) -> Record | None:
        """What was started under this name, running or not."""
        try:
            pid, start, digest = (self.layout.daemons / name).read_text().split()
            return Record(Process(int(pid), int(start)), digest)
        except (FileNotFoundError, ValueError):
            return None

    def find(self, name: str) -> Process | None:
        """The process, if it runs."""
        record = self.record(name)
        return record.process if record and record.process.alive() else None

    def names(self) -> list[str]:
        """Every process that was started."""
        if not self.layout.daemons.is_dir():
            return []
        return sorted(path.name for path in self.layout.daemons.iterdir() if path.suffix != ".new")

    async def ensure(self, daemon: Daemon) -> bool:
        """Have it running as described; say whether it had to be started."""
        self.wanted.add(daemon.name)
        record = self.record(daemon.name)
        digest = daemon.digest()
        if record and record.process.alive():
            if record.digest == digest:
                return False
            await self.stop(daemon.name, daemon.ends_on)
        if record is None or not daemon.keeps_children:
            await self.kill_children(daemon.name)
        await self._launch(daemon, digest)
        return True

    async def run(self, name: str, *command: str | Path, stdin: str | None = None, seconds: float) -> None:
        """Run a program to its end in the cgroup of a process: were we killed, it would be found and ended there."""
        await run("/bin/sh", "-c", JOIN, "supportfleet", self._members(name), *command, stdin=stdin, seconds=seconds)

    def _members(self, name: str) -> Path:
        folder = self.cgroups.tracking / self.cgroup(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "cgroup.procs"

    async def _launch(self, daemon: Daemon, digest: str) -> None:
        record = self.layout.daemons / daemon.name
        record.unlink(missing_ok=True)
        places: tuple[str | Path, ...] = (record, self._members(daemon.name), self.log(daemon.name))
        said = await run(
            *("setsid", "--fork", "/bin/sh", "-c", LAUNCH, "supportfleet"),
            *(*places, digest, *daemon.entering),
            seconds=LAUNCH_SECONDS,
            environment={"PATH": SEARCH_PATH, **daemon.environment},
        )
        if self.record(daemon.name) is None:
            raise DaemonError(f"{daemon.name} could not be started: {said.strip() or 'no reason given'}")

    async def stop(self, name: str, asked: signal.Signals = signal.SIGTERM) -> None:
        """End it: asked first, then killed."""
        if process := self.find(name):
            process.signal(asked)
            if not await process.gone(STOP_SECONDS):
                process.signal(signal.SIGKILL)
                await process.gone(STOP_SECONDS)
        (self.layout.daemons / name).unlink(missing_ok=True)

    async def stop_unwanted(self) -> None:
        """End those that nobody has asked for since this was made."""
        for name in set(self.names()) - self.wanted:
            await self.stop(name)
            await self.kill_children(name)

    async def kill_children(self, name: str) -> None:
        """Kill what a process left behind in its cgroup: it may hold the ports and the files of the next."""
        cgroup = self.cgroup(name)
        deadline = time.monotonic() + STOP_SECONDS
        while found := self.cgroups.processes(cgroup):
            for pid in found:
                send(pid, signal.SIGKILL, lambda pid: self.cgroups.holds(cgroup, pid))
            if time.monotonic() > deadline:
                raise DaemonError(f"processes of {name} do not end: {', '.join(map(str, sorted(found)))}")
            await asyncio.sleep(0.02)

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of its log."""
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - 64 * 1024))
                return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def require(self, names: Iterable[str]) -> None:
        """Fail with the end of the log of whichever of these has ended."""
        for name in names:
            if self.find(name) is None:
                raise DaemonError(
                    f"{name} has ended; the end of its log:\n{self.tail(name)}",
                    remedy=f"The whole log: supportfleet local logs {name} --name {self.layout.name}",
                )

    async def wait(self, names: Iterable[str], ready: Check, what: str, *, seconds: float) -> None:
        """Wait until `ready` says so, for as long as the processes it depends on run."""
        names = tuple(names)
        deadline = time.monotonic() + seconds
        while not await ready():
            self.require(names)
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.tail(name)}" for name in names)
                raise DaemonError(
                    f"{what} was not ready within {seconds:.0f} s\n{logs}",
                    remedy="Run the same command again: it goes on from here.",
                )
            await asyncio.sleep(0.1)
