"""Starting nodes, and getting images into them."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supportfleet.errors import CommandError
from supportfleet.local.embedded import files, namespaces, teardown
from supportfleet.local.embedded.api import Api
from supportfleet.local.embedded.context import Context, together
from supportfleet.local.embedded.host import run
from supportfleet.local.embedded.layout import NETNS_ROOT, NodeLayout
from supportfleet.local.embedded.node import Node, inside

READY_SECONDS = 120
CONTAINERD_SECONDS = 60
IMPORT_SECONDS = 600


async def start(context: Context, number: int) -> None:
    """Have one node running: containerd with its images, the kubelet and kube-proxy."""
    layout = context.layout.node(number)
    node = Node(layout, context.addresses, context.programs["kubelet"], context.programs["kube-proxy"])
    _make_folders(context, node)
    if await namespaces.ensure_mounts(layout):
        # Whatever runs still is in a namespace that is lost, and could not see what is mounted in this one.
        await teardown.end_processes(teardown.Scope.of_node(layout), context.daemons.cgroups)
    containerd, kubelet, proxy = node.daemons
    with context.progress.step(f"node {layout.name}", expected=8, lane=layout.name):
        await context.daemons.ensure(containerd)
        await context.daemons.wait(
            (containerd.name,), lambda: _answers(layout), f"containerd of {layout.name}", seconds=CONTAINERD_SECONDS
        )
        for name, archive in context.images.items():
            await ensure_image(layout, name, archive)
        await together(context.daemons.ensure(kubelet), context.daemons.ensure(proxy))


def _make_folders(context: Context, node: Node) -> None:
    layout = node.layout
    for folder in ("log/pods", "log/containers", "lib/kubelet", "lib/containerd", "lib/cni", "tmp"):
        (layout.var / folder).mkdir(parents=True, exist_ok=True)
    (layout.var / "run").unlink(missing_ok=True)
    (layout.var / "run").symlink_to("/run")
    context.daemons.cgroups.make(layout.cgroup)
    context.identities.node(layout)
    for name, content in node.configuration.items():
        files.write(layout.etc / name, content)
    for program in (node.kubelet, node.kube_proxy, *([context.programs["envoy"]] if context.record.istio else [])):
        _share(program, layout.var / inside(program).relative_to("/var"))


def _share(program: Path, target: Path) -> None:
    """Have the program where the node sees it: the same file where that is possible, else a copy."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(program, temporary)
    except OSError:
        shutil.copy2(program, temporary)
    temporary.replace(target)


def entering(layout: NodeLayout, *command: str | Path) -> tuple[str | Path, ...]:
    """A command as the node runs it."""
    return ("nsenter", f"--net={NETNS_ROOT / layout.namespace}", f"--mount={layout.pin}", "--", *command)


async def _answers(layout: NodeLayout) -> bool:
    try:
        await run(*entering(layout, "ctr", "--connect-timeout", "2s", "version"), seconds=5)
    except CommandError:
        return False
    return True


async def ensure_image(layout: NodeLayout, name: str, archive: Path) -> None:
    """Have an image in a node. The one that was imported last under this name is remembered."""
    mark, identity = layout.etc / "images" / name, _identity(archive)
    if not mark.exists() or mark.read_text() != identity:
        await load_image(layout, archive)
        files.write(mark, identity)


async def load_image(layout: NodeLayout, archive: Path) -> None:
    """Import an image archive into a node."""
    # It is handed over open: the node might not see its path.
    with archive.open("rb") as file:
        command = entering(layout, "ctr", "--namespace", "k8s.io", "images", "import", "-")
        await run(*command, stdin=file, seconds=IMPORT_SECONDS)


def _identity(archive: Path) -> str:
    stat = archive.stat()
    return f"{archive} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


async def wait_ready(context: Context, api: Api) -> None:
    """Wait until every node is Ready."""
    names = {context.layout.node(number).name for number in context.node_numbers}
    watched = [daemon for daemon in context.daemons.names() if daemon.startswith("node")]

    async def ready() -> bool:
        return names <= await ready_nodes(api)

    with context.progress.step("nodes Ready", expected=10, lane="cluster"):
        await context.daemons.wait(watched, ready, f"{', '.join(sorted(names))}", seconds=READY_SECONDS)


async def ready_nodes(api: Api) -> set[str]:
    """The names of the nodes that are Ready."""
    return {node["metadata"]["name"] for node in await listed(api) if is_ready(node)}


async def listed(api: Api) -> list[dict[str, Any]]:
    """Every Node object."""
    answer = await api.get("/api/v1/nodes") or {}
    items: list[dict[str, Any]] = answer.get("items", [])
    return items


def is_ready(node: Mapping[str, Any]) -> bool:
    """Whether the node says so."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def facts(node: Mapping[str, Any]) -> dict[str, Any]:
    """What `status` says of a node."""
    addresses = node.get("status", {}).get("addresses", [])
    return {
        "name": node["metadata"]["name"],
        "ready": is_ready(node),
        "address": next((a["address"] for a in addresses if a["type"] == "InternalIP"), ""),
    }
