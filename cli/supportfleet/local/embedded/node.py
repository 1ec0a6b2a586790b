"""A node: configuration and command lines of containerd, the kubelet and kube-proxy. Pure.

Paths are as the node sees them in its own mount namespace (see NodeLayout), hence the usual ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supportfleet.local.embedded import files
from supportfleet.local.embedded.controlplane import options
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN, Addresses, NodeLayout

CNI_PLUGINS = Path("/usr/lib/cni")
PAUSE_IMAGE = "docker.io/supportfleet/pause:dev"
SOCKET = "unix:///run/containerd/containerd.sock"


def inside(program: Path) -> Path:
    """Where nodes have a program of the cache, which they can't see: a changed one is another path."""
    return NodeLayout.INSIDE / "bin" / files.digest(str(program)) / program.name


@dataclass(frozen=True)
class Node:
    """One node and its addresses."""

    layout: NodeLayout
    addresses: Addresses
    kubelet: Path
    kube_proxy: Path

    @property
    def configuration(self) -> dict[str, str]:
        """Every configuration file, by its name in the node's folder."""
        etc = NodeLayout.INSIDE
        return {
            "containerd.toml": containerd_config(etc),
            "cni/10-supportfleet.conflist": files.to_json(
                cni_config(str(self.addresses.pod_range(self.layout.number)))
            ),
            "kubelet.yaml": files.to_yaml(kubelet_config(self, etc)),
            "kube-proxy.yaml": files.to_yaml(proxy_config(self, etc)),
            # Pods that ask for the node's own DNS get the cluster's: there is no other.
            "resolv.conf": f"nameserver {self.addresses.dns_service}\n",
        }

    @property
    def daemons(self) -> tuple[Daemon, Daemon, Daemon]:
        """containerd, the kubelet and kube-proxy."""
        etc, name = NodeLayout.INSIDE, self.layout.name
        address = self.addresses.node(self.layout.number)
        kubelet = options(
            config=etc / "kubelet.yaml",
            kubeconfig=etc / "kubelet.kubeconfig",
            hostname_override=name,
            node_ip=address,
        )
        proxy = options(config=etc / "kube-proxy.yaml", hostname_override=name)
        return (
            self._daemon("containerd", ("/usr/bin/containerd", f"--config={etc / 'containerd.toml'}")),
            self._daemon("kubelet", (str(inside(self.kubelet)), *kubelet)),
            self._daemon("kube-proxy", (str(inside(self.kube_proxy)), *proxy)),
        )

    def _daemon(self, name: str, command: tuple[str, ...]) -> Daemon:
        reads = {
            "containerd": ("containerd.toml",),
            "kubelet": ("kubelet.yaml", "kubelet.kubeconfig", "kubelet.crt", "ca.crt"),
            "kube-proxy": ("kube-proxy.yaml", "kube-proxy.kubeconfig"),
        }
        return Daemon(
            f"{self.layout.label}-{name}",
            command,
            self.layout.namespace,
            mounts=self.layout.pin,
            reads=tuple(self.layout.etc / file for file in reads[name]),
            keeps_children=name == "containerd",
        )


def containerd_config(etc: Path) -> str:
    """Containerd's config.toml."""
    return f"""version = 2
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE runc could not lower an OOM score, and would die trying.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{etc / "cni"}"
"""


def cni_config(pod_range: str) -> dict[str, Any]:
    """Each pod has a link to its node, which routes between them: what is routed passes kube-proxy's rules.

    On a bridge it would only with the kernel's br_netfilter, which changes how all bridges of the machine work.
    """
    link = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": pod_range}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "supportfleet", "plugins": [link, portmap]}


def kubelet_config(node: Node, etc: Path) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.addresses.node(node.layout.number)),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(etc / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(etc / "kubelet.crt"),
        "tlsPrivateKeyFile": str(etc / "kubelet.key"),
        "containerRuntimeEndpoint": SOCKET,
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [str(node.addresses.dns_service)],
        "resolvConf": str(etc / "resolv.conf"),
        # Pods of every node of every cluster of this machine are below the cgroup of their own.
        "cgroupRoot": f"/{node.layout.cgroup}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Images come by load-image and not from a registry: what is collected is gone.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "containerLogMaxSize": "8Mi",
        "containerLogMaxFiles": 2,
    }


def proxy_config(node: Node, etc: Path) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(etc / "kube-proxy.kubeconfig")},
        "mode": "iptables",
        # Who is not a pod (this machine, the API server) gets its answers through the node that it asked.
        "clusterCIDR": str(node.addresses.pods),
        "bindAddress": str(node.addresses.node(node.layout.number)),
        "metricsBindAddress": "127.0.0.1:10249",
        # The size of the table is this machine's, not a namespace's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
