"""Who is who in a cluster: which program gets which certificate, and the kubeconfigs made of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from supportfleet.local.embedded import files
from supportfleet.local.embedded.certificates import (
    MASTERS,
    PUBLIC,
    Authority,
    Pair,
    Subject,
    kubeconfig,
    signing_key,
)
from supportfleet.local.embedded.controlplane import API_PORT, Pki
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN, Addresses, Layout, NodeLayout


@dataclass(frozen=True)
class Identities:
    """The certificates of one cluster, made or renewed as they are asked for."""

    layout: Layout
    addresses: Addresses
    now: datetime

    @cached_property
    def authority(self) -> Authority:
        """Everything in the cluster trusts it."""
        return Authority(self.layout.pki, "ca", self.now)

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.addresses.control}:{API_PORT}"

    def control_plane(self) -> Pki:
        """The certificates of the API server."""
        authority = self.authority
        # An authority of its own: whoever has a certificate of it may say who a request is from.
        front_proxy = Authority(self.layout.pki, "front-proxy-ca", self.now)
        service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
        names = (*service, f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost")
        served = Subject("kube-apiserver", hosts=(*names, self.addresses.control, self.addresses.api_service))
        return Pki(
            authority=authority.pair,
            apiserver=authority.issue("apiserver", served),
            kubelet_client=authority.issue("apiserver-kubelet", Subject("apiserver-kubelet", (MASTERS,))),
            front_proxy=front_proxy.issue("front-proxy", Subject("front-proxy-client")),
            front_proxy_authority=front_proxy.pair,
            service_accounts=signing_key(self.layout.pki, "service-accounts"),
        )

    def admin(self) -> Pair:
        """cluster-admin, for people and for `up` itself; also in a kubeconfig."""
        pair = self.authority.issue("admin", Subject("kubernetes-admin", (MASTERS,)))
        name = f"supportfleet-{self.layout.name}"
        files.write(self.layout.kubeconfig, self._kubeconfig(pair, name, name))
        return pair

    def client(self, label: str, user: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig of a program that runs beside the control plane."""
        pair = self.authority.issue(label, Subject(user, tuple(groups)))
        path = self.layout.etc / f"{label}.kubeconfig"
        files.write(path, self._kubeconfig(pair, "local", label))
        return path

    def serving(self, label: str, service: str, namespace: str) -> Pair:
        """A certificate of a server that the API server calls by its Service's name."""
        names = (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.{CLUSTER_DOMAIN}")
        return self.authority.issue(label, Subject(service, hosts=(*names, self.addresses.control)))

    def node(self, node: NodeLayout) -> None:
        """A node's certificates and kubeconfigs, in the folder that the node sees."""
        kubelet = Subject(
            f"system:node:{node.name}", ("system:nodes",), hosts=(node.name, self.addresses.node(node.number))
        )
        pair = self.authority.issue("kubelet", kubelet, node.etc)
        files.write(node.etc / "kubelet.kubeconfig", self._kubeconfig(pair, "local", "kubelet"))
        proxy = self.authority.issue("kube-proxy", Subject("system:kube-proxy"))
        files.write(node.etc / "kube-proxy.kubeconfig", self._kubeconfig(proxy, "local", "kube-proxy"))
        files.write(node.etc / "ca.crt", self.authority.pair.certificate.read_bytes(), PUBLIC)

    def _kubeconfig(self, pair: Pair, cluster: str, user: str) -> str:
        authority = self.authority.pair.certificate
        return kubeconfig(self.server, authority, pair.identity, cluster=cluster, user=user)
