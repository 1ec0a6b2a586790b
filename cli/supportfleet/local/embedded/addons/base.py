"""What an addon is: processes beside the control plane, and objects in the cluster."""

import base64
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supportfleet.local.embedded.api import FIELD_MANAGER, Api, Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon

# Where pods find the servers that run beside the control plane.
LOCAL_NAMESPACE = "supportfleet-local"


async def _nothing(_context: Context) -> None:
    """Most need no preparation."""


async def _at_once(_context: Context, _api: Api) -> bool:
    """Most work as soon as their processes do."""
    return True


def with_nodes(context: Context) -> bool:
    """A control plane alone needs none of them."""
    return context.record.nodes > 0


@dataclass(frozen=True)
class Addon:
    """One addon."""

    name: str
    # Objects, applied in this order once the API server is ready.
    manifests: Callable[[Context], Sequence[Manifest]]
    # Processes in the control namespace, started once the API server is ready.
    daemons: Callable[[Context], Sequence[Daemon]] = lambda _context: ()
    # What can be done meanwhile.
    prepare: Callable[[Context], Coroutine[Any, Any, None]] = _nothing
    # Whether it works by now; asked until it says so.
    ready: Callable[[Context, Api], Coroutine[Any, Any, bool]] = _at_once
    # What `status` says of it.
    facts: Callable[[Context], Mapping[str, Any]] = lambda _context: {}
    wanted: Callable[[Context], bool] = with_nodes


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Manifest:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}


@dataclass(frozen=True)
class Port:
    """A port of a Service, and of the server behind it."""

    name: str
    number: int
    target: int = 0
    protocol: str = "TCP"


def external_service(
    context: Context, name: str, where: str, ports: Iterable[Port], *, cluster_ip: str | None = None
) -> list[Manifest]:
    """A Service without a selector, and the address of the control plane behind it."""
    ports = list(ports)
    spec: dict[str, Any] = {
        "ports": [
            {"name": p.name, "port": p.number, "targetPort": p.target or p.number, "protocol": p.protocol}
            for p in ports
        ]
    }
    if cluster_ip:
        spec["clusterIP"] = cluster_ip
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": FIELD_MANAGER}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": where}, "spec": spec},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-control-plane", "namespace": where, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [str(context.addresses.control)], "conditions": {"ready": True}}],
            "ports": [{"name": p.name, "port": p.target or p.number, "protocol": p.protocol} for p in ports],
        },
    ]


def secret(name: str, where: str, values: Mapping[str, str]) -> Manifest:
    """A Secret."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": where}, "data": data}


Rule = tuple[Sequence[str], Sequence[str], Sequence[str]]


def cluster_role(name: str, user: str, rules: Iterable[Rule]) -> list[Manifest]:
    """What a user may do in the whole cluster: (API groups, resources, verbs)."""
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": list(g), "resources": list(r), "verbs": list(v)} for g, r, v in rules],
        },
        cluster_role_binding(name, user, name),
    ]


def cluster_role_binding(name: str, user: str, role: str) -> Manifest:
    """Give a user a cluster role."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }


def role_binding(name: str, where: str, user: str, kind: str, role: str) -> Manifest:
    """Give a user a role in one namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": where},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
