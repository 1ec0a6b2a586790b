"""Network and mount namespaces, and the links between them.

::

    this machine              control namespace                      node namespace, one for each node
    sf-<hash> .254 ───veth─── host ─┐                                eth0 .11 ── kube-proxy ── pods
                                    ├─ br0 .1 (API server, DNS, S3 …)
    node1 ─────────────────────veth─┘

Everything is on one bridge, so this machine, the control plane and the nodes reach each other directly, and pods and
Services through routes. No rule is made in this machine's firewall, none of its ports is taken, and nothing is
forwarded by it; all else disappears with the namespaces.

A node also has a mount namespace (see NodeLayout), held by a file as network namespaces are.
"""

import json
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import Any

from supportfleet.errors import AddressClashError
from supportfleet.local.embedded.host import mounts, run
from supportfleet.local.embedded.layout import INDICES, NETNS_ROOT, Addresses, Layout, NodeLayout

# A route this wide (a VPN that takes all of 10.0.0.0/8, say) loses against ours, which are narrower: no clash.
WIDE_PREFIX = 12

# What else is mounted under /var and /run is let go of, so that the node does not keep it busy; of that, only what the
# node's own folder lies in stays.
ENTER_NODE = """
set -eu
cut -d " " -f 5 /proc/self/mountinfo | grep -E "^/(run|var)/" | sort -r | while read -r mounted; do
  case "$1/" in
    "$mounted"/*) ;;
    *) umount --lazy "$(printf %b "$mounted")" || : ;;
  esac
done
mount --bind "$1" /var
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -p /run/netns /run/lock
mount --make-rshared /
touch /run/supportfleet-node
"""


def namespaces() -> list[str]:
    """Every named network namespace."""
    return sorted(path.name for path in NETNS_ROOT.iterdir()) if NETNS_ROOT.is_dir() else []


async def ip(*commands: str, namespace: str = "") -> None:
    """Carry out several commands at once."""
    where = ("-n", namespace) if namespace else ()
    if not commands:
        return
    await run("ip", *where, "-batch", "-", stdin="\n".join(commands) + "\n", seconds=20)


async def links(namespace: str = "") -> set[str]:
    """The names of the links in a namespace."""
    where = ("-n", namespace) if namespace else ()
    return {link["ifname"] for link in json.loads(await run("ip", *where, "-json", "link", "show", seconds=20))}


async def taken_ranges(but: Layout) -> list[IPv4Network]:
    """Address ranges that this machine routes or has, other than by the link of this cluster."""
    routes: list[dict[str, Any]] = json.loads(await run("ip", "-4", "-json", "route", "show", "table", "all"))
    wanted = (r["dst"] for r in routes if r.get("dev") != but.host_link and r["dst"] not in {"default", "broadcast"})
    return [network for network in map(IPv4Network, wanted) if network.prefixlen >= WIDE_PREFIX]


def clashes(addresses: Addresses, taken: Iterable[IPv4Network]) -> list[tuple[IPv4Network, IPv4Network]]:
    """Which of the cluster's ranges overlaps which range in use."""
    return [(own, other) for other in taken for own in addresses.ranges if own.overlaps(other)]


def free_addresses(taken: Iterable[IPv4Network], reserved: Iterable[int]) -> Addresses:
    """The first addresses that nothing else uses."""
    taken, reserved = list(taken), set(reserved)
    for index in INDICES:
        if index not in reserved and not clashes(Addresses(index), taken):
            return Addresses(index)
    raise AddressClashError(
        f"none of the {len(INDICES)} address ranges for clusters is free",
        remedy="See `ip route`: free 10.89.X.0/24, 10.(90+X).0.0/16 and 10.(106+X).0.0/16 for one X in 0..15, "
        "or take another cluster down (supportfleet local down --name …).",
    )


def require_free(layout: Layout, addresses: Addresses, taken: Iterable[IPv4Network]) -> None:
    """The addresses that the cluster already has must not have been taken by something else since."""
    for own, other in clashes(addresses, taken):
        raise AddressClashError(
            f"cluster {layout.name!r} has the addresses {own}, and this machine now routes {other} elsewhere",
            remedy=f"Remove that route (see `ip route`), or make the cluster anew with other addresses: "
            f"supportfleet local down --name {layout.name}, then up.",
        )


async def ensure_control(layout: Layout, addresses: Addresses, numbers: Sequence[int]) -> None:
    """The control namespace with its bridge, the link from this machine, and routes in both."""
    namespace = layout.control_namespace
    await _ensure_namespace(namespace)
    if "br0" not in await links(namespace):
        await ip("link add br0 type bridge", namespace=namespace)
    if layout.host_link not in await links():
        await _remove_link(namespace, "host")
        await ip(f"link add {layout.host_link} type veth peer name host netns {namespace}")
    to_pods = [f"route replace {addresses.pod_range(n)} via {addresses.node(n)}" for n in numbers]
    # Services are found at the first node: its kube-proxy knows all of them.
    to_services = [f"route replace {addresses.services} via {addresses.node(1)}"] if to_pods else []
    await ip(
        "link set host master br0",
        f"addr replace {addresses.control}/{addresses.nodes.prefixlen} dev br0",
        *("link set lo up", "link set br0 up", "link set host up"),
        *(*to_pods, *to_services),
        namespace=namespace,
    )
    await run("nsenter", f"--net={NETNS_ROOT / namespace}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    await ip(
        f"link set {layout.host_link} alias supportfleet:{layout.name}",
        f"addr replace {addresses.host}/{addresses.nodes.prefixlen} dev {layout.host_link}",
        f"link set {layout.host_link} up",
        *(*to_pods, *to_services),
    )
    ranges = {str(addresses.services), *(str(addresses.pod_range(number)) for number in numbers)}
    for where, device in (("", layout.host_link), (namespace, "br0")):
        await _drop_stale_routes(where, device, ranges if numbers else set())


async def _drop_stale_routes(namespace: str, device: str, wanted: set[str]) -> None:
    """Remove the routes to nodes that the cluster has no more."""
    where = ("-n", namespace) if namespace else ()
    routes = json.loads(await run("ip", *where, "-4", "-json", "route", "show", "dev", device))
    stale = [route["dst"] for route in routes if "gateway" in route and route["dst"] not in wanted]
    await ip(*(f"route delete {destination} dev {device}" for destination in stale), namespace=namespace)


async def ensure_node(node: NodeLayout, addresses: Addresses) -> None:
    """A node's network namespace, on the bridge."""
    control = node.cluster.control_namespace
    await _ensure_namespace(node.namespace)
    if "eth0" not in await links(node.namespace):
        await _remove_link(control, node.label)
        await ip(f"link add {node.label} type veth peer name eth0 netns {node.namespace}", namespace=control)
    await ip(f"link set {node.label} master br0", f"link set {node.label} up", namespace=control)
    await ip(
        f"addr replace {addresses.node(node.number)}/{addresses.nodes.prefixlen} dev eth0",
        *("link set lo up", "link set eth0 up"),
        f"route replace default via {addresses.control}",
        namespace=node.namespace,
    )
    await run("nsenter", f"--net={NETNS_ROOT / node.namespace}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


async def _ensure_namespace(name: str) -> None:
    if name not in {mount.path.name for mount in mounts() if mount.path.parent == NETNS_ROOT}:
        # A file that holds no namespace is what an interrupted `ip netns add` leaves.
        (NETNS_ROOT / name).unlink(missing_ok=True)
        await run("ip", "netns", "add", name, seconds=20)


async def _remove_link(namespace: str, name: str) -> None:
    if name in await links(namespace):
        await ip(f"link delete {name}", namespace=namespace)


async def ensure_mounts(node: NodeLayout) -> bool:
    """A node's mount namespace; say whether it had to be made."""
    pins = node.cluster.pins
    pins.mkdir(parents=True, exist_ok=True)
    mounted = {mount.path for mount in mounts()}
    if pins not in mounted:
        # The kernel refuses to hold a mount namespace in a mount that is shared.
        await run("mount", "--bind", pins, pins)
        await run("mount", "--make-private", pins)
    if node.pin in mounted:
        if await _is_complete(node):
            return False
        await run("umount", node.pin)
    node.pin.touch()
    enter = ("sh", "-c", ENTER_NODE, "supportfleet", node.var)
    await run("unshare", f"--mount={node.pin}", "--propagation", "slave", *enter)
    return True


async def _is_complete(node: NodeLayout) -> bool:
    """Whether making the namespace was not interrupted."""
    found = await run(
        "nsenter", f"--mount={node.pin}", "sh", "-c", "test -e /run/supportfleet-node && echo complete || :"
    )
    return found.strip() == "complete"
