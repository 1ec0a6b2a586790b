"""metrics-server, as an aggregated API: `kubectl top`, and the CPU figures of autoscalers."""

from collections.abc import Sequence

from supportfleet.local.embedded.addons.base import (
    Addon,
    Port,
    cluster_role,
    cluster_role_binding,
    external_service,
    role_binding,
)
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.certificates import base64_of
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.controlplane import options
from supportfleet.local.embedded.daemons import Daemon

USER = "supportfleet:metrics-server"
SERVICE, NAMESPACE = "metrics-server", "kube-system"
PORT = 4443
RESOLUTION_SECONDS = 10


def daemons(context: Context) -> Sequence[Daemon]:
    """metrics-server."""
    authority = context.identities.authority.pair.certificate
    kubeconfig = context.identities.client("metrics-server", USER)
    serving = context.identities.serving("metrics-server-serving", SERVICE, NAMESPACE)
    command = options(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        bind_address=context.addresses.control,
        secure_port=PORT,
        tls_cert_file=serving.certificate,
        tls_private_key_file=serving.key,
        kubelet_certificate_authority=authority,
        kubelet_preferred_address_types="InternalIP",
        kubelet_use_node_status_port=True,
        metric_resolution=f"{RESOLUTION_SECONDS}s",
        kubelet_request_timeout=f"{RESOLUTION_SECONDS - 1}s",
    )
    program = str(context.programs["metrics-server"])
    reads = (kubeconfig, *serving.files)
    return [Daemon("metrics-server", (program, *command), context.layout.control_namespace, reads=reads)]


def manifests(context: Context) -> Sequence[Manifest]:
    """The API, and what its server may do."""
    rules = [
        (("",), ("nodes/metrics",), ("get",)),
        (("",), ("pods", "nodes"), ("get", "list", "watch")),
    ]
    return [
        *cluster_role("system:metrics-server", USER, rules),
        cluster_role_binding("supportfleet:metrics-server:auth-delegator", USER, "system:auth-delegator"),
        role_binding(
            "metrics-server-auth-reader", NAMESPACE, USER, "Role", "extension-apiserver-authentication-reader"
        ),
        _readers(),
        *external_service(context, SERVICE, NAMESPACE, [Port("https", 443, PORT)]),
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": SERVICE, "namespace": NAMESPACE, "port": 443},
                "caBundle": base64_of(context.identities.authority.pair.certificate),
            },
        },
    ]


def _readers() -> Manifest:
    """Whoever may view a namespace may view its metrics."""
    roles = ("view", "edit", "admin")
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in roles},
        },
        "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    }


ADDON = Addon("metrics", manifests, daemons)
