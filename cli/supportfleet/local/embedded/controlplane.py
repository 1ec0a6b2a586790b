"""The control plane: command lines and configuration of etcd, the API server and its controllers. Pure.

Everything listens in the control namespace, so ports are the usual ones. etcd is on that namespace's loopback, which
nothing but the control plane can reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supportfleet.local.embedded.certificates import Pair
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN, Addresses, Layout

API_PORT = 6443
ETCD = "http://127.0.0.1:2379"
ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
AUDIT_MEBIBYTES = 64
# A dead node is noticed this soon; the kubelet renews its lease every 10 s.
NODE_GRACE_SECONDS = 25


@dataclass(frozen=True)
class Pki:
    """The control plane's certificates."""

    authority: Pair
    front_proxy_authority: Pair
    apiserver: Pair
    kubelet_client: Pair
    front_proxy: Pair
    service_accounts: Pair


# What is written of a request: who, what, when, how it ended; not what was sent. Probes say nothing of interest.
AUDIT_POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "None",
            "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/metrics", "/openapi/*"],
        },
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata"},
    ],
}


def options(**values: object) -> tuple[str, ...]:
    """Command-line options: `advertise_address=x` is --advertise-address=x."""
    return tuple(f"--{name.replace('_', '-')}={_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def etcd(layout: Layout, binary: Path, *, fsync: bool) -> Daemon:
    """The store. Without fsync a crash of the machine (not of etcd) can lose the cluster: for tests."""
    command = options(
        name="control",
        data_dir=layout.folder / "etcd",
        listen_client_urls=ETCD,
        advertise_client_urls=ETCD,
        listen_peer_urls="http://127.0.0.1:2380",
        initial_advertise_peer_urls="http://127.0.0.1:2380",
        initial_cluster="control=http://127.0.0.1:2380",
        log_level="warn",
    )
    unsafe = () if fsync else ("--unsafe-no-fsync",)
    return Daemon("etcd", (str(binary), *command, *unsafe), layout.control_namespace)


def apiserver(layout: Layout, addresses: Addresses, binary: Path, pki: Pki, audit_policy: Path) -> Daemon:
    """The API server."""
    command = options(
        etcd_servers=ETCD,
        advertise_address=addresses.control,
        secure_port=API_PORT,
        service_cluster_ip_range=addresses.services,
        allow_privileged=True,
        profiling=False,
        authorization_mode="Node,RBAC",
        # MutatingAdmissionPolicy lets a node advertise more CPU than there is (addons/capacity.py).
        enable_admission_plugins="NodeRestriction",
        feature_gates="MutatingAdmissionPolicy=true",
        runtime_config="admissionregistration.k8s.io/v1beta1=true",
        client_ca_file=pki.authority.certificate,
        tls_cert_file=pki.apiserver.certificate,
        tls_private_key_file=pki.apiserver.key,
        kubelet_certificate_authority=pki.authority.certificate,
        kubelet_client_certificate=pki.kubelet_client.certificate,
        kubelet_client_key=pki.kubelet_client.key,
        # A node's name resolves nowhere.
        kubelet_preferred_address_types="InternalIP",
        service_account_issuer=ISSUER,
        service_account_key_file=pki.service_accounts.certificate,
        service_account_signing_key_file=pki.service_accounts.key,
        # Aggregated APIs (metrics) are reached at their endpoints: so that none depends on a node.
        enable_aggregator_routing=True,
        proxy_client_cert_file=pki.front_proxy.certificate,
        proxy_client_key_file=pki.front_proxy.key,
        requestheader_client_ca_file=pki.front_proxy_authority.certificate,
        requestheader_allowed_names="front-proxy-client",
        requestheader_username_headers="X-Remote-User",
        requestheader_group_headers="X-Remote-Group",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        audit_policy_file=audit_policy,
        audit_log_path=layout.audit_log,
        audit_log_maxsize=AUDIT_MEBIBYTES,
        audit_log_maxbackup=1,
    )
    pairs = (pki.authority, pki.front_proxy_authority, pki.apiserver, pki.kubelet_client, pki.front_proxy)
    reads = tuple(file for pair in (*pairs, pki.service_accounts) for file in pair.files)
    return Daemon("kube-apiserver", (str(binary), *command), layout.control_namespace, reads=(*reads, audit_policy))


def controller_manager(layout: Layout, binary: Path, pki: Pki, kubeconfig: Path) -> Daemon:
    """The controllers of Kubernetes itself."""
    command = options(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        leader_elect=False,
        profiling=False,
        use_service_account_credentials=True,
        service_account_private_key_file=pki.service_accounts.key,
        root_ca_file=pki.authority.certificate,
        cluster_signing_cert_file=pki.authority.certificate,
        cluster_signing_key_file=pki.authority.key,
        node_monitor_grace_period=f"{NODE_GRACE_SECONDS}s",
    )
    reads = (kubeconfig, *pki.service_accounts.files, *pki.authority.files)
    return Daemon("kube-controller-manager", (str(binary), *command), layout.control_namespace, reads=reads)


def scheduler(layout: Layout, binary: Path, kubeconfig: Path) -> Daemon:
    """The scheduler."""
    command = options(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        leader_elect=False,
        profiling=False,
    )
    return Daemon("kube-scheduler", (str(binary), *command), layout.control_namespace, reads=(kubeconfig,))
