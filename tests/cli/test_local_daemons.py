"""Real processes, in this machine's namespaces, with plain folders in the place of cgroups."""

# ruff: noqa: ASYNC110, ASYNC220, ASYNC240 - what is waited for are processes, which set no event; blocking is short

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supportfleet.errors import CommandError, DaemonError
from supportfleet.local.embedded.daemons import Daemon, Daemons
from supportfleet.local.embedded.host import Process
from supportfleet.local.embedded.layout import Layout
from supportfleet.local.embedded.logs import ROTATE


class FolderCgroups:
    """Cgroups whose members are who wrote themselves into cgroup.procs and still runs."""

    def __init__(self, root: Path) -> None:
        self.tracking = root

    def processes(self, cgroup: str) -> set[int]:
        members = self.tracking / cgroup / "cgroup.procs"
        listed = members.read_text().split() if members.exists() else []
        return {int(pid) for pid in listed if Process.of(int(pid))}

    def holds(self, cgroup: str, pid: int) -> bool:
        return pid in self.processes(cgroup)

    def join(self, cgroup: str, pid: int) -> None:
        with (self.tracking / cgroup / "cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    layout = Layout("demo", tmp_path / "state", tmp_path / "run")
    layout.logs.mkdir(parents=True)
    layout.daemons.mkdir(parents=True)
    made = Daemons(layout, FolderCgroups(tmp_path / "cgroup"))  # type: ignore[arg-type] # a fake of what it uses
    yield made
    for name in made.names():
        if process := made.find(name):
            process.signal(signal.SIGKILL)


def sleeper(name: str = "sleeper", *words: str, reads: tuple[Path, ...] = ()) -> Daemon:
    return Daemon(name, ("/bin/sh", "-c", "echo started; exec sleep 300", *words), reads=reads)


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_it_is_started_once(daemons: Daemons) -> None:
    """A process that runs as described is left alone, and its output is in its log."""
    assert await daemons.ensure(sleeper())
    first = daemons.find("sleeper")
    assert first is not None
    assert not await daemons.ensure(sleeper())
    assert daemons.find("sleeper") == first
    await until(lambda: daemons.tail("sleeper") == "started")


async def test_it_outlives_who_started_it(daemons: Daemons) -> None:
    """It is in a session of its own and no child of ours: neither a hang-up nor our end takes it along."""
    await daemons.ensure(sleeper())
    process = daemons.find("sleeper")
    assert process is not None
    assert os.getsid(process.pid) != os.getsid(0)
    assert int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()


async def test_a_killed_one_is_started_again(daemons: Daemons) -> None:
    """What has ended, however it ended, runs again after the next `ensure`."""
    await daemons.ensure(sleeper())
    first = daemons.find("sleeper")
    assert first is not None
    first.signal(signal.SIGKILL)
    assert await first.gone(5)
    assert daemons.find("sleeper") is None
    assert await daemons.ensure(sleeper())
    assert daemons.find("sleeper") not in (None, first)


@pytest.mark.parametrize("change", ["command", "file", "environment"])
async def test_a_changed_one_is_restarted(daemons: Daemons, tmp_path: Path, change: str) -> None:
    """Another command, environment or configuration file is another process, and the old one is gone."""
    config = tmp_path / "config"
    config.write_text("one")
    await daemons.ensure(sleeper(reads=(config,)))
    first = daemons.find("sleeper")
    assert first is not None
    config.write_text("two" if change == "file" else "one")
    words = ("more",) if change == "command" else ()
    environment = {"A": "1"} if change == "environment" else {}
    changed = Daemon("sleeper", (*sleeper().command, *words), environment=environment, reads=(config,))
    assert await daemons.ensure(changed)
    assert not first.alive()
    assert daemons.find("sleeper") is not None


async def test_a_recycled_number_is_not_ours(daemons: Daemons) -> None:
    """A process that has the number of one of ours, but another start time, is neither found nor signalled."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        real = Process.of(stranger.pid)
        assert real is not None
        (daemons.layout.daemons / "sleeper").write_text(f"{real.pid} {real.start - 1} digest")
        assert daemons.find("sleeper") is None
        Process(real.pid, real.start - 1).signal(signal.SIGKILL)
        await daemons.stop("sleeper")
        assert real.alive()
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


async def test_a_zombie_does_not_run() -> None:
    """A process that has ended but was not waited for by its parent is not taken to be running."""
    with subprocess.Popen(["true"]) as child:
        async with asyncio.timeout(10):
            while Process.of(child.pid) is not None:
                await asyncio.sleep(0.01)


async def test_what_a_dead_one_left_is_killed_first(daemons: Daemons) -> None:
    """A child that outlived its killed parent (and holds its port) is ended before the parent is started again."""
    await daemons.ensure(sleeper())
    first = daemons.find("sleeper")
    assert first is not None
    with subprocess.Popen(["sleep", "300"]) as child:
        daemons.cgroups.join(daemons.cgroup("sleeper"), child.pid)  # type: ignore[attr-defined]
        first.signal(signal.SIGKILL)
        assert await first.gone(5)
        await daemons.ensure(sleeper())
        assert child.wait(5) == -signal.SIGKILL


async def test_children_that_are_to_go_on_do(daemons: Daemons) -> None:
    """The shims of containerd hold the pods: they are left alone when containerd is started again."""
    keeper = Daemon("keeper", sleeper().command, keeps_children=True)
    await daemons.ensure(keeper)
    first = daemons.find("keeper")
    assert first is not None
    with subprocess.Popen(["sleep", "300"]) as child:
        daemons.cgroups.join(daemons.cgroup("keeper"), child.pid)  # type: ignore[attr-defined]
        first.signal(signal.SIGKILL)
        assert await first.gone(5)
        await daemons.ensure(keeper)
        assert child.poll() is None
        child.kill()


async def test_what_is_run_to_its_end_is_found_too(daemons: Daemons) -> None:
    """A program that prepares a process's data is in its cgroup: were `up` killed, it would be found and ended."""
    work = asyncio.create_task(daemons.run("database", "sleep", "300", seconds=60))
    await until(lambda: daemons.cgroups.processes(daemons.cgroup("database")))
    await daemons.kill_children("database")
    with pytest.raises(CommandError, match="signal 9"):
        await work


async def test_what_is_no_longer_wanted_is_stopped(daemons: Daemons) -> None:
    """A process that this run of `up` has not asked for, as it did before, is ended and forgotten."""
    await daemons.ensure(sleeper("kept"))
    await daemons.ensure(sleeper("dropped"))
    dropped = daemons.find("dropped")
    assert dropped is not None
    later = Daemons(daemons.layout, daemons.cgroups)
    assert not await later.ensure(sleeper("kept"))
    await later.stop_unwanted()
    assert not dropped.alive()
    assert later.names() == ["kept"]


async def test_one_that_ends_says_why(daemons: Daemons) -> None:
    """Waiting for a process that ends fails at once with the end of its log and where the whole is."""
    await daemons.ensure(Daemon("broken", ("/bin/sh", "-c", "echo 'port 53 is in use'; exit 1")))

    async def never() -> bool:
        return False

    with pytest.raises(DaemonError, match="port 53 is in use") as caught:
        await daemons.wait(["broken"], never, "the server", seconds=60)
    assert "local logs broken --name demo" in caught.value.remedy


async def test_waiting_has_an_end(daemons: Daemons) -> None:
    """A process that runs but never gets ready is an error with its log, not an endless wait."""
    await daemons.ensure(sleeper())
    await until(lambda: daemons.tail("sleeper"))

    async def never() -> bool:
        return False

    with pytest.raises(DaemonError, match=r"not ready within 0 s\n--- sleeper\nstarted"):
        await daemons.wait(["sleeper"], never, "the server", seconds=0)


async def test_a_missing_program_is_said_so(daemons: Daemons) -> None:
    """A program that is not there ends up in the log like any other failure."""
    await daemons.ensure(Daemon("missing", ("/nowhere/etcd",)))
    await until(lambda: daemons.find("missing") is None)
    with pytest.raises(DaemonError, match="/nowhere/etcd"):
        daemons.require(["missing"])


async def test_a_damaged_record_is_no_process(daemons: Daemons) -> None:
    """A half-written record stands for nothing, and starting goes on."""
    (daemons.layout.daemons / "sleeper").write_text("12")
    assert daemons.find("sleeper") is None
    assert await daemons.ensure(sleeper())
    assert daemons.find("sleeper") is not None


async def test_a_stubborn_one_is_killed(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end when asked is killed."""
    monkeypatch.setattr("supportfleet.local.embedded.daemons.STOP_SECONDS", 0.2)
    await daemons.ensure(Daemon("stubborn", ("/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")))
    await until(lambda: daemons.tail("stubborn") == "deaf")
    process = daemons.find("stubborn")
    assert process is not None
    await daemons.stop("stubborn")
    assert not process.alive()


async def test_logs_do_not_grow_without_end(daemons: Daemons, tmp_path: Path) -> None:
    """A log over the limit is kept once and emptied, while its writer goes on writing into it."""
    writer = 'while read line; do echo "$line"; done'
    logs = daemons.layout.logs
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await daemons.ensure(Daemon("writer", ("/bin/sh", "-c", f"exec < {fifo}; {writer}")))
    with fifo.open("w", buffering=1) as lines:
        lines.write("x" * 5000 + "\n")
        await until(lambda: (logs / "writer.log").stat().st_size > 5000)
        with subprocess.Popen(["/bin/sh", "-c", ROTATE, "log-rotation", str(logs), "4000", "0.05"]) as rotation:
            await until(lambda: (logs / "writer.log").stat().st_size == 0)
            lines.write("after\n")
            await until(lambda: daemons.tail("writer") == "after")
            rotation.kill()
    assert (logs / "writer.log").stat().st_size == len("after\n")
    assert (logs / "writer.log.1").stat().st_size == 5001
