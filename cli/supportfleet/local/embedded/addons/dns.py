"""Cluster DNS: CoreDNS beside the control plane, behind the Service kube-dns.

It answers for the cluster's own names only. The cluster has no way out, so any other name does not exist: a pod that
asks for one learns it at once instead of waiting for an answer that can't come.
"""

from collections.abc import Sequence
from pathlib import Path

from supportfleet.local.embedded import files
from supportfleet.local.embedded.addons.base import Addon, Port, cluster_role, external_service
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN

USER = "supportfleet:coredns"


def corefile(kubeconfig: Path) -> str:
    """CoreDNS's configuration."""
    return f"""{CLUSTER_DOMAIN} in-addr.arpa {{
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig "{kubeconfig}"
        pods insecure
        ttl 5
    }}
    cache 5
    loadbalance
}}
. {{
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def daemons(context: Context) -> Sequence[Daemon]:
    """CoreDNS."""
    kubeconfig = context.identities.client("coredns", USER)
    config = context.layout.etc / "Corefile"
    files.write(config, corefile(kubeconfig))
    command = (str(context.programs["coredns"]), "-conf", str(config))
    return [Daemon("coredns", command, context.layout.control_namespace, reads=(config, kubeconfig))]


def manifests(context: Context) -> Sequence[Manifest]:
    """The Service that every pod's resolv.conf names."""
    look = ("list", "watch")
    rules = [
        (("",), ("endpoints", "services", "pods", "namespaces"), look),
        (("discovery.k8s.io",), ("endpointslices",), look),
    ]
    ports = (Port("dns", 53, protocol="UDP"), Port("dns-tcp", 53))
    return [
        *cluster_role("supportfleet:coredns", USER, rules),
        *external_service(context, "kube-dns", "kube-system", ports, cluster_ip=str(context.addresses.dns_service)),
    ]


ADDON = Addon("dns", manifests, daemons)
