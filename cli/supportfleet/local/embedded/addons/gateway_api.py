"""The Gateway API beside Istio's own kinds: its definitions, and a Gateway that is the ingress that there is.

Istio would deploy an Envoy of its own for a Gateway; one with `addresses` is taken to be what serves there already.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from supportfleet.local.embedded.addons import ingress
from supportfleet.local.embedded.addons.base import Rule
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN

GROUP: Final = "gateway.networking.k8s.io"
DEFINITIONS: Final = Path("config") / "crd" / "standard"
CLASS: Final = "istio"
# What an HTTPRoute names, in the ingress's namespace.
GATEWAY: Final = "local"

_LOOK = ("get", "list", "watch")
_KINDS = ("backendtlspolicies", "gatewayclasses", "gateways", "grpcroutes", "httproutes", "listenersets")
_ROUTES = ("referencegrants", "tcproutes", "tlsroutes", "udproutes")
RULES: Final[tuple[Rule, ...]] = (
    ((GROUP,), (*_KINDS, *_ROUTES), _LOOK),
    ((GROUP,), tuple(f"{kind}/status" for kind in (*_KINDS, *_ROUTES)), ("update", "patch")),
    (("",), ("configmaps", "serviceaccounts"), _LOOK),
)
ENVIRONMENT: Final = {
    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
    "PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER": "false",
}


def definition_files(source: Path) -> Sequence[Path]:
    """The files of the standard channel, in the module that publishes them; one holds an admission policy."""
    return sorted((source / DEFINITIONS).glob(f"{GROUP}_*.yaml"))


def manifests() -> Sequence[Manifest]:
    """The class, and the Gateway; the definitions have to be known by then."""
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    address = {"type": "Hostname", "value": f"{ingress.NAME}.{ingress.NAMESPACE}.svc.{CLUSTER_DOMAIN}"}
    return [
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": "istio.io/gateway-controller"},
        },
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": ingress.NAMESPACE},
            "spec": {"gatewayClassName": CLASS, "addresses": [address], "listeners": [listener]},
        },
    ]
