"""Taking a cluster, or one node of it, down by its name alone.

Nothing that was remembered is relied upon: processes are found by the cgroup and by the namespaces they are in, mounts
by the folders they are under, the rest by name. So it works after any crash, with any part missing, and twice.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supportfleet.errors import ClusterError
from supportfleet.local.embedded import namespaces
from supportfleet.local.embedded.host import PROC, Cgroups, all_processes, mounts, run, send
from supportfleet.local.embedded.layout import NETNS_ROOT, Layout, NodeLayout

SECONDS = 20
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Scope:
    """All that is to go."""

    # In this order: what would start other processes is in the first.
    cgroups: tuple[str, ...]
    namespaces: tuple[str, ...]
    folders: tuple[Path, ...]
    files: tuple[Path, ...] = ()
    link: str = ""

    @classmethod
    def of_cluster(cls, layout: Layout) -> "Scope":
        """A whole cluster. Its folder may be another than it was started with: the running cluster says which."""
        started_with = layout.run / "state"
        folders = [layout.folder, *([started_with.resolve()] if started_with.is_symlink() else [])]
        return cls(
            cgroups=(f"{layout.cgroup}/daemons", layout.cgroup),
            namespaces=tuple(name for name in namespaces.namespaces() if layout.owns_namespace(name)),
            folders=tuple(dict.fromkeys([*folders, layout.run])),
            link=layout.host_link,
        )

    @classmethod
    def of_node(cls, node: NodeLayout) -> "Scope":
        """One node of a cluster that goes on."""
        daemons = [f"{node.label}-{name}" for name in ("kubelet", "containerd", "kube-proxy")]
        records = tuple(node.cluster.daemons / name for name in daemons)
        return cls(
            cgroups=(*(f"{node.cluster.cgroup}/daemons/{name}" for name in daemons), node.cgroup),
            namespaces=(node.namespace,),
            folders=(node.var.parent,),
            files=(node.pin, *records, *(node.cluster.logs / f"{name}.log" for name in daemons)),
        )

    def exists(self, cgroups: Cgroups) -> bool:
        """Whether any of it is there."""
        paths = (*self.folders, *self.files, *(NETNS_ROOT / name for name in self.namespaces))
        return any(path.exists() for path in paths) or any(map(cgroups.exists, self.cgroups))


async def end_processes(scope: Scope, cgroups: Cgroups) -> None:
    """Kill every process of it."""
    await _until(lambda: _kill(scope, cgroups), "its processes do not end")


async def remove(scope: Scope, cgroups: Cgroups) -> None:
    """Remove all of it."""
    await end_processes(scope, cgroups)
    for mount in reversed(mounts()):
        if any(mount.path.is_relative_to(path) for path in (*scope.folders, *scope.files)):
            # Lazily: at once out of sight, and gone with its last user, were there one left.
            await run("umount", "--lazy", mount.path)
    if scope.link in await namespaces.links():
        await namespaces.ip(f"link delete {scope.link}")
    for name in scope.namespaces:
        await _remove_namespace(name)
    await _until(lambda: _remove_cgroups(scope, cgroups), "its cgroups can't be removed")
    for folder in scope.folders:
        if folder.exists():
            await asyncio.to_thread(shutil.rmtree, folder)
    for file in scope.files:
        file.unlink(missing_ok=True)


async def remove_empty(*folders: Path) -> None:
    """Remove folders that held nothing but clusters, and the mount in which `ip netns` keeps its namespaces."""
    if NETNS_ROOT.is_dir() and not namespaces.namespaces():
        with contextlib.suppress(OSError):
            if any(mount.path == NETNS_ROOT for mount in mounts()):
                await run("umount", NETNS_ROOT)
            NETNS_ROOT.rmdir()
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


async def _until(done: Callable[[], bool], trouble: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the cluster can't be taken down: {trouble}",
                remedy="Look for processes in uninterruptible sleep (`ps axo pid,stat,comm`), then run it again.",
            )
        await asyncio.sleep(POLL_SECONDS)


def _kill(scope: Scope, cgroups: Cgroups) -> bool:
    """Kill what there is; say whether there was nothing."""
    files = [*(NETNS_ROOT / name for name in scope.namespaces), *(path for path in scope.files if path.is_file())]
    spaces = {_identity(file) for folder in scope.folders for file in folder.glob("ns/*")} | set(map(_identity, files))

    def meant(pid: int) -> bool:
        return any(cgroups.holds(cgroup, pid) for cgroup in scope.cgroups) or _is_inside(pid, spaces)

    for cgroup in scope.cgroups:
        if found := cgroups.processes(cgroup):
            break
    else:
        found = {pid for pid in all_processes() if _is_inside(pid, spaces)}
    for pid in found - {os.getpid()}:
        send(pid, signal.SIGKILL, meant)
    return not found


def _is_inside(pid: int, spaces: set[tuple[int, int]]) -> bool:
    """Whether a process is in one of these namespaces."""
    try:
        return any(_identity(PROC / str(pid) / "ns" / kind) in spaces for kind in ("net", "mnt"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # ended meanwhile, or one that even root may not look at and so did not start


def _identity(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return (stat.st_dev, stat.st_ino)


async def _remove_namespace(name: str) -> None:
    path = NETNS_ROOT / name
    if any(mount.path == path for mount in mounts()):
        await run("umount", "--lazy", path)
    path.unlink(missing_ok=True)


def _remove_cgroups(scope: Scope, cgroups: Cgroups) -> bool:
    """Remove them, if the last processes have left by now."""
    try:
        for cgroup in scope.cgroups:
            cgroups.remove(cgroup)
    except OSError:
        return False
    return True
