"""Istio, for --istio: istiod beside the control plane, and a gateway that takes traffic in (ingress.py).

Routes are VirtualServices or, by the Gateway API, HTTPRoutes (gateway_api.py).

Stock Envoy lacks Istio's own filters, and nothing here hands out certificates, so what needs either (automatic mutual
TLS, sidecars, the injector) is off: routing is what this is for.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from supportfleet.local.embedded import files
from supportfleet.local.embedded.addons import gateway_api, ingress
from supportfleet.local.embedded.addons.base import (
    Addon,
    Port,
    Rule,
    cluster_role,
    external_service,
    namespace,
)
from supportfleet.local.embedded.api import Api, Manifest
from supportfleet.local.embedded.context import Context
from supportfleet.local.embedded.daemons import Daemon
from supportfleet.local.embedded.materials import GATEWAY_API, ISTIO_API

USER = "supportfleet:istiod"
NAMESPACE = ingress.NAMESPACE
# The Gateway object that a VirtualService names, in NAMESPACE.
GATEWAY = "local"
DEFINITIONS = Path("kubernetes") / "customresourcedefinitions.gen.yaml"

ENVIRONMENT = {
    "POD_NAMESPACE": NAMESPACE,
    "POD_NAME": "istiod",
    "INJECT_ENABLED": "false",
    "ENABLE_CA_SERVER": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    **gateway_api.ENVIRONMENT,
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}
MESH = {"enableAutoMtls": False, "enablePrometheusMerge": False, "rootNamespace": NAMESPACE}

_LOOK = ("get", "list", "watch")
_WRITE = (*_LOOK, "create", "update", "patch", "delete")
RULES: tuple[Rule, ...] = (
    (
        ("networking.istio.io",),
        (
            *("destinationrules", "envoyfilters", "gateways", "proxyconfigs", "serviceentries", "sidecars"),
            *("virtualservices", "workloadgroups"),
        ),
        _LOOK,
    ),
    (("networking.istio.io",), ("workloadentries", "workloadentries/status", "serviceentries/status"), _WRITE),
    (("security.istio.io",), ("authorizationpolicies", "peerauthentications", "requestauthentications"), _LOOK),
    (("telemetry.istio.io",), ("telemetries",), _LOOK),
    (("extensions.istio.io",), ("wasmplugins", "trafficextensions"), _LOOK),
    (("",), ("pods", "nodes", "services", "namespaces", "endpoints", "secrets"), _LOOK),
    (("",), ("configmaps",), (*_LOOK, "create", "update")),
    (("discovery.k8s.io",), ("endpointslices",), _LOOK),
    (("networking.k8s.io",), ("ingresses", "ingressclasses"), _LOOK),
    (("apiextensions.k8s.io",), ("customresourcedefinitions",), _LOOK),
    (("admissionregistration.k8s.io",), ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"), _LOOK),
    (("coordination.k8s.io",), ("leases",), (*_LOOK, "create", "update")),
    (("authentication.k8s.io",), ("tokenreviews",), ("create",)),
    (("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
    *gateway_api.RULES,
)


async def prepare(context: Context) -> None:
    """Keep the custom resource definitions in a form that is quickly read."""
    sources = [context.sources[ISTIO_API] / DEFINITIONS, *gateway_api.definition_files(context.sources[GATEWAY_API])]
    kept = _definitions_file(context)
    if not kept.exists():
        await asyncio.to_thread(_convert, sources, kept)


def _convert(sources: Sequence[Path], target: Path) -> None:
    documents = [
        document for source in sources for document in yaml.load_all(source.read_text(), Loader=yaml.CSafeLoader)
    ]
    kept = [document for document in documents if document and document["kind"] == "CustomResourceDefinition"]
    files.write(target, json.dumps(kept))


def _definitions_file(context: Context) -> Path:
    versions = "-".join(context.sources[name].name for name in (ISTIO_API, GATEWAY_API))
    return context.layout.etc / f"istio-definitions-{versions}.json"


def manifests(context: Context) -> Sequence[Manifest]:
    """The definitions, istiod's rights and Service, and the gateway."""
    definitions: list[Manifest] = json.loads(_definitions_file(context).read_text())
    ports = (Port("grpc-xds", ingress.ADS_PORT), Port("http-monitoring", 15014))
    return [
        *definitions,
        namespace(NAMESPACE),
        *cluster_role(USER, USER, RULES),
        *external_service(context, "istiod", NAMESPACE, ports),
        *ingress.manifests(context),
    ]


def daemons(context: Context) -> Sequence[Daemon]:
    """The control plane of the mesh."""
    kubeconfig = context.identities.client("istiod", USER)
    mesh = context.layout.etc / "mesh.yaml"
    files.write(mesh, files.to_yaml(MESH))
    command = (
        *(str(context.programs["pilot-discovery"]), "discovery"),
        f"--kubeconfig={kubeconfig}",
        f"--meshConfig={mesh}",
        f"--grpcAddr={context.addresses.control}:{ingress.ADS_PORT}",
        *("--httpAddr=127.0.0.1:15080", "--httpsAddr=", "--secureGRPCAddr=", "--ctrlz_port=0"),
        *("--registries=Kubernetes", "--log_output_level=default:warn", "--profile=false"),
    )
    network = context.layout.control_namespace
    return [Daemon("istiod", command, network, environment=ENVIRONMENT, reads=(kubeconfig, mesh))]


async def ready(_context: Context, api: Api) -> bool:
    """Whether the gateway serves; then there are Gateway objects that routes can name."""
    where = f"namespaces/{NAMESPACE}"
    found = await api.get(f"/apis/apps/v1/{where}/deployments/{ingress.NAME}") or {}
    if not found.get("status", {}).get("availableReplicas"):
        return False
    servers = [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]
    await api.apply(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": NAMESPACE},
            "spec": {"selector": {"istio": ingress.LABELS["istio"]}, "servers": servers},
        }
    )
    for manifest in gateway_api.manifests():
        await api.apply(manifest)
    return True


def facts(context: Context) -> Mapping[str, Any]:
    """Where traffic goes in, and the Gateways that a VirtualService and an HTTPRoute name."""
    gateways = {"gateway": f"{NAMESPACE}/{GATEWAY}", "gatewayAPI": f"{NAMESPACE}/{gateway_api.GATEWAY}"}
    return {"ingress": {"endpoint": f"http://{ingress.address(context)}", **gateways}}


def wanted(context: Context) -> bool:
    """With --istio, on a cluster that has nodes."""
    return context.record.istio and context.record.nodes > 0


ADDON = Addon("istio", manifests, daemons, prepare=prepare, ready=ready, facts=facts, wanted=wanted)
