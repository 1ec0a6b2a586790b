"""The way into a cluster with Istio: a stock Envoy, run by the cluster and configured by istiod.

No image carries Envoy: the nodes have its program, and the pod mounts it.
"""

import json
from typing import Any

from supportfleet.local.embedded import files
from supportfleet.local.embedded.api import Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.layout import CLUSTER_DOMAIN
from supportfleet.local.embedded.node import inside

NAMESPACE = "istio-system"
NAME = "istio-ingressgateway"
LABELS = {"app": NAME, "istio": "ingressgateway"}
IMAGE = "docker.io/supportfleet/base:dev"
ADS_PORT, HTTP_PORT, STATUS_PORT, ADMIN_PORT = 15010, 8080, 15021, 15000
NOT_ROOT = 65532
# Fixed: where traffic is sent to should not have to be looked up again after every `up`.
ADDRESS_NUMBER = 20


def address(context: Context) -> str:
    """Where the cluster takes traffic."""
    return str(context.addresses.services[ADDRESS_NUMBER])


def manifests(context: Context) -> list[Manifest]:
    """The Deployment of Envoy, its configuration and its Service."""
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": LABELS}
    config = json.dumps(bootstrap(context))
    ports = [{"name": "status-port", "port": STATUS_PORT}, {"name": "http2", "port": 80, "targetPort": HTTP_PORT}]
    service = {"selector": LABELS, "ports": ports, "clusterIP": address(context)}
    template = {"metadata": {"labels": LABELS, "annotations": {"supportfleet.dev/config": files.digest(config)}}}
    deployment = {"selector": {"matchLabels": LABELS}, "template": {**template, "spec": _pod(context)}}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"envoy.json": config}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
    ]


def _pod(context: Context) -> dict[str, Any]:
    program = inside(context.programs["envoy"])
    identity = f"router~$(POD_IP)~$(POD_NAME).{NAMESPACE}~{NAMESPACE}.svc.{CLUSTER_DOMAIN}"
    fields = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP"}
    probe = {"httpGet": {"path": "/healthz/ready", "port": STATUS_PORT}, "periodSeconds": 2}
    container = {
        "name": "envoy",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": [f"/envoy/{program.name}"],
        "args": [
            *("--config-path", "/etc/envoy/envoy.json", "--concurrency", "1", "--log-level", "warning"),
            *("--service-cluster", NAME, "--service-node", identity),
        ],
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [{"containerPort": HTTP_PORT}, {"containerPort": STATUS_PORT}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "program", "mountPath": "/envoy", "readOnly": True},
            {"name": "config", "mountPath": "/etc/envoy", "readOnly": True},
        ],
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": NOT_ROOT},
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": "program", "hostPath": {"path": str(program.parent), "type": "Directory"}},
            {"name": "config", "configMap": {"name": NAME}},
        ],
    }


def bootstrap(context: Context) -> dict[str, Any]:
    """Envoy's configuration: where istiod is, who Envoy is, and how it says that it is ready."""
    ads = {"name": "ads", "type": "STRICT_DNS", "connect_timeout": "5s"}
    admin = {"name": "admin", "type": "STATIC", "connect_timeout": "1s"}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    istiod = f"istiod.{NAMESPACE}.svc.{CLUSTER_DOMAIN}"
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {
            "metadata": {
                "NAMESPACE": NAMESPACE,
                "LABELS": LABELS,
                "CLUSTER_ID": "Kubernetes",
                "ISTIO_VERSION": context.sources["istio.io/api"].name.partition("@v")[2],
            }
        },
        "admin": {"address": _socket("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    **ads,
                    "typed_extension_protocol_options": http2,
                    "load_assignment": _endpoint("ads", istiod, ADS_PORT),
                },
                {**admin, "load_assignment": _endpoint("admin", "127.0.0.1", ADMIN_PORT)},
            ],
            "listeners": [_status_listener()],
        },
    }


def _status_listener() -> dict[str, Any]:
    """Readiness and figures for anyone; the rest of the admin interface stays on loopback."""
    routes = [
        {"match": {"path": "/healthz/ready"}, "route": {"cluster": "admin", "prefix_rewrite": "/ready"}},
        {"match": {"path": "/stats/prometheus"}, "route": {"cluster": "admin"}},
    ]
    kinds = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "status",
        "route_config": {"virtual_hosts": [{"name": "status", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    anywhere = _socket("0.0.0.0", STATUS_PORT)  # noqa: S104 - of the pod
    return {"name": "status", "address": anywhere, "filter_chains": [{"filters": filters}]}


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _endpoint(cluster: str, address: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _socket(address, port)}}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}
