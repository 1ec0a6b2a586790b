from __future__ import annotations

import os
from pathlib import Path

from supportfleet.local.embedded.host import Cgroups, Mount, Process, mounts

HYBRID = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
31 22 0:27 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
32 22 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
40 22 0:40 / /mnt/with\040space rw - tmpfs tmpfs rw,size=4k
41 22 0:4 net:[4026532300] /run/netns/sf-demo-control rw shared:9 - nsfs nsfs rw
"""
UNIFIED = "30 22 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def under(root: Path, mountinfo: str) -> Cgroups:
    """The same hierarchies, as plain folders under a root."""
    found = Cgroups(mounts(mountinfo.strip()))
    for mount in (*found.v1, *found.v2):
        (root / mount.path.name).mkdir()
    move = lambda mount: Mount(root / mount.path.name, mount.kind, mount.options)  # noqa: E731 - one line is clearer
    found.v1, found.v2 = [*map(move, found.v1)], [*map(move, found.v2)]
    for mounted in (mount.path for mount in found.v2):
        for folder in (mounted, mounted / "demo", mounted / "supportfleet-demo"):
            folder.mkdir(exist_ok=True)
            (folder / "cgroup.controllers").write_text("cpu memory misc pids\n")
            (folder / "cgroup.subtree_control").write_text("pids\n")
    return found


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    """Paths with spaces, optional fields and namespaces are read right, in the order of mounting."""
    found = mounts(HYBRID.strip())
    assert [str(mount.path) for mount in found][-2:] == ["/mnt/with space", "/run/netns/sf-demo-control"]
    assert [mount.kind for mount in found] == ["ext4", "cgroup", "cgroup", "cgroup2", "tmpfs", "nsfs"]
    assert any(mount.path == Path("/") for mount in mounts())


def test_a_cgroup_is_made_in_every_hierarchy(tmp_path: Path) -> None:
    """The kubelet wants the parent of its pods in each controller's hierarchy; nested ones get their parents."""
    cgroups = under(tmp_path, HYBRID.replace("cpuset", "cpu"))
    cgroups.make("supportfleet-demo/node1")
    cgroups.make("supportfleet-demo/node1")
    assert all((root / "supportfleet-demo" / "node1").is_dir() for root in cgroups.roots)
    assert cgroups.exists("supportfleet-demo")
    assert not cgroups.exists("supportfleet-dem")


def test_controllers_are_handed_down(tmp_path: Path) -> None:
    """In version 2 the parent of the pods gets every controller that the kubelet looks for, and no other."""
    cgroups = under(tmp_path, UNIFIED)
    cgroups.make("demo/node1")
    assert (tmp_path / "cgroup" / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tmp_path / "cgroup" / "demo" / "cgroup.subtree_control").read_text() == "+cpu +memory"


def test_a_new_cpuset_can_be_joined(tmp_path: Path) -> None:
    """In version 1 a new cpuset is empty and refuses processes: it gets its parent's processors and memory."""
    cgroups = under(tmp_path, HYBRID)
    root = tmp_path / "cpuset"
    for name, value in (("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")):
        (root / name).write_text(value)
        for folder in ("demo", "demo/node1"):
            (root / folder).mkdir(exist_ok=True)
            (root / folder / name).write_text("\n")
    cgroups.make("demo/node1")
    assert (root / "demo/node1/cpuset.cpus").read_text() == "0-1\n"
    assert (root / "demo/node1/cpuset.mems").read_text() == "0\n"


def test_processes_are_found_at_any_depth(tmp_path: Path) -> None:
    """Who is in the cgroup or below it in any hierarchy is found: a pod's processes are in their own below ours."""
    cgroups = under(tmp_path, UNIFIED)
    deep = tmp_path / "cgroup" / "demo" / "node1" / "kubepods" / "pod1"
    deep.mkdir(parents=True)
    (deep / "cgroup.procs").write_text("12\n13\n")
    (tmp_path / "cgroup" / "demo" / "cgroup.procs").write_text("11\n")
    assert cgroups.processes("demo") == {11, 12, 13}
    assert cgroups.processes("demo/node1") == {12, 13}
    assert cgroups.processes("dem") == set()


def test_processes_are_tracked_where_every_system_has_it() -> None:
    """Version 1 tracks in the hierarchy of pids, which systemd does not rearrange; version 2 has only one."""
    assert Cgroups(mounts(HYBRID.strip())).tracking == Path("/sys/fs/cgroup/pids")
    assert Cgroups(mounts(UNIFIED.strip())).tracking == Path("/sys/fs/cgroup")


def test_a_process_knows_itself() -> None:
    """A running process is found with its start, its memory and the time it was started at."""
    me = Process.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert me.resident_mebibytes() > 5
    assert abs(me.started_at() - Path(f"/proc/{me.pid}").stat().st_ctime) < 600
    assert not Process(me.pid, me.start + 1).alive()
    assert Process.of(2**22 + 1) is None
