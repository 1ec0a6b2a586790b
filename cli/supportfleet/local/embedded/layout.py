"""What everything of a cluster is called and where it is: a pure function of its name, its index and the state folder.

Addresses come from an index, so that clusters run side by side: index X has 10.89.X.0/24 for its control plane and
nodes, 10.(90+X).0.0/16 for pods (a /24 for each node) and 10.(106+X).0.0/16 for Services.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from supportfleet.errors import ClusterError

INDICES = range(16)
MAX_NODES = 50
RUN_ROOT = Path("/run/supportfleet")
NETNS_ROOT = Path("/run/netns")
CLUSTER_DOMAIN = "cluster.local"

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?")


def checked_name(name: str) -> str:
    """The name, if namespaces, links and Kubernetes nodes can be called after it."""
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"{name!r} can't be a cluster's name",
            remedy="Use at most 30 lower-case letters, digits and hyphens, beginning with a letter: --name my-cluster.",
        )
    return name


@dataclass(frozen=True)
class Addresses:
    """The address ranges of the cluster with this index."""

    index: int

    @cached_property
    def nodes(self) -> IPv4Network:
        """Control plane, nodes and this machine's end of the link."""
        return IPv4Network(f"10.89.{self.index}.0/24")

    @cached_property
    def pods(self) -> IPv4Network:
        """Every pod of the cluster."""
        return IPv4Network(f"10.{90 + self.index}.0.0/16")

    @cached_property
    def services(self) -> IPv4Network:
        """Every ClusterIP."""
        return IPv4Network(f"10.{106 + self.index}.0.0/16")

    @property
    def ranges(self) -> tuple[IPv4Network, ...]:
        """All that the cluster takes of the address space."""
        return (self.nodes, self.pods, self.services)

    @property
    def control(self) -> IPv4Address:
        """Where the API server and the servers beside it listen."""
        return self.nodes[1]

    @property
    def host(self) -> IPv4Address:
        """This machine, seen from the cluster."""
        return self.nodes[254]

    @property
    def api_service(self) -> IPv4Address:
        """The ClusterIP of the Service `kubernetes`."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv4Address:
        """The ClusterIP of the cluster's DNS."""
        return self.services[10]

    def node(self, number: int) -> IPv4Address:
        """The address of a node, counted from 1."""
        return self.nodes[10 + number]

    def pod_range(self, number: int) -> IPv4Network:
        """The pods of one node."""
        first = int(self.pods.network_address) + (number << 8)
        return IPv4Network((first, 24))


@dataclass(frozen=True)
class Layout:
    """Names and folders of one cluster."""

    name: str
    folder: Path
    run_root: Path = RUN_ROOT

    @property
    def control_namespace(self) -> str:
        """The network namespace of the control plane."""
        return f"sf-{self.name}-control"

    def node_namespace(self, number: int) -> str:
        """The network namespace of a node."""
        return f"sf-{self.name}-node{number}"

    def owns_namespace(self, namespace: str) -> bool:
        """Whether a network namespace belongs to this cluster (and not to one whose name merely begins like it)."""
        return re.fullmatch(rf"sf-{re.escape(self.name)}-(control|node\d+)", namespace) is not None

    @property
    def host_link(self) -> str:
        """This machine's end of the link into the cluster. Link names hold 15 characters, so the name is hashed."""
        return f"sf-{hashlib.sha256(self.name.encode()).hexdigest()[:10]}"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds every process and pod of the cluster, below the root of each hierarchy."""
        return f"supportfleet-{self.name}"

    @property
    def run(self) -> Path:
        """What does not outlive a reboot: records of processes, pins of namespaces, sockets."""
        return self.run_root / self.name

    @property
    def pins(self) -> Path:
        """Where the mount namespaces of nodes are held."""
        return self.run / "ns"

    @property
    def daemons(self) -> Path:
        """One record for each process: its number, start and what it was started as."""
        return self.run / "daemons"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.folder / "logs"

    @property
    def audit_log(self) -> Path:
        """What the API server was asked, by whom."""
        return self.folder / "audit" / "audit.log"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.folder / "pki"

    @property
    def etc(self) -> Path:
        """Configuration of the control plane's programs."""
        return self.folder / "etc"

    @property
    def kubeconfig(self) -> Path:
        """For people: cluster-admin."""
        return self.folder / "kubeconfig"

    @property
    def manifests(self) -> Path:
        """What was applied to the cluster by `up`, to read."""
        return self.folder / "manifests"

    def node(self, number: int) -> "NodeLayout":
        """One node's part of it."""
        return NodeLayout(self, number)

    @property
    def node_prefix(self) -> str:
        """How the names of Node objects of this cluster begin."""
        return f"{self.name}-node"

    def node_numbers(self) -> list[int]:
        """The nodes that have a folder."""
        numbers = (path.name.removeprefix("node") for path in self.folder.glob("node*"))
        return sorted(int(number) for number in numbers if number.isdecimal())


@dataclass(frozen=True)
class NodeLayout:
    """Names and folders of one node.

    A node has its own mount namespace in which `var` is /var and a tmpfs is /run, so that containerd, the kubelet and
    the CNI plugins use the paths they use anywhere and leave nothing on this machine. Their configuration lies in
    /var/lib/supportfleet, as they see it.
    """

    cluster: Layout
    number: int

    INSIDE = Path("/var/lib/supportfleet")

    @property
    def label(self) -> str:
        """What its processes and files are called."""
        return f"node{self.number}"

    @property
    def name(self) -> str:
        """The Node object."""
        return f"{self.cluster.node_prefix}{self.number}"

    @property
    def namespace(self) -> str:
        """The network namespace."""
        return self.cluster.node_namespace(self.number)

    @property
    def pin(self) -> Path:
        """The file that holds the mount namespace."""
        return self.cluster.pins / self.label

    @property
    def var(self) -> Path:
        """What the node sees as /var."""
        return self.cluster.folder / self.label / "var"

    @property
    def etc(self) -> Path:
        """INSIDE, seen from outside."""
        return self.var / "lib" / "supportfleet"

    @property
    def cgroup(self) -> str:
        """The parent of the node's pods."""
        return f"{self.cluster.cgroup}/{self.label}"
