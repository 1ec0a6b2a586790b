"""The kinds the operator touches, and where the API server serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from supportfleet_operator.api import group

Manifest = dict[str, Any]
"""A Kubernetes object as plain JSON."""


class AgentKey(NamedTuple):
    """Which SupportAgent: what is queued, and what children are indexed by."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and the place in the API where it is served."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What manifests call the group and version."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, an object or a subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


SUPPORT_AGENTS: Final = Resource(group.KIND, group.PLURAL, group.GROUP, group.VERSION)

CONFIG_MAPS: Final = Resource("ConfigMap", "configmaps")
SERVICE_ACCOUNTS: Final = Resource("ServiceAccount", "serviceaccounts")
SERVICES: Final = Resource("Service", "services")
DEPLOYMENTS: Final = Resource("Deployment", "deployments", "apps")
AUTOSCALERS: Final = Resource("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", "v2")
DISRUPTION_BUDGETS: Final = Resource("PodDisruptionBudget", "poddisruptionbudgets", "policy")
NETWORK_POLICIES: Final = Resource("NetworkPolicy", "networkpolicies", "networking.k8s.io")
JOBS: Final = Resource("Job", "jobs", "batch")
VOLUME_CLAIMS: Final = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
CONTROLLER_REVISIONS: Final = Resource("ControllerRevision", "controllerrevisions", "apps")
VIRTUAL_SERVICES: Final = Resource("VirtualService", "virtualservices", "networking.istio.io")
DESTINATION_RULES: Final = Resource("DestinationRule", "destinationrules", "networking.istio.io")
HTTP_ROUTES: Final = Resource("HTTPRoute", "httproutes", "gateway.networking.k8s.io")
PODS: Final = Resource("Pod", "pods")

SECRETS: Final = Resource("Secret", "secrets")
STORAGE_CLASSES: Final = Resource("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False)
LEASES: Final = Resource("Lease", "leases", "coordination.k8s.io")
EVENTS: Final = Resource("Event", "events", "events.k8s.io")

CHILDREN: Final = (
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    SERVICES,
    DEPLOYMENTS,
    AUTOSCALERS,
    DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
    JOBS,
    VOLUME_CLAIMS,
    CONTROLLER_REVISIONS,
)
"""What an agent becomes, in every cluster."""

OPTIONAL: Final = (VIRTUAL_SERVICES, DESTINATION_RULES, HTTP_ROUTES)
"""Children of kinds that a cluster may lack."""

WATCHED: Final = (*CHILDREN, PODS)
"""What is watched, by label; the optional kinds are, once they are served."""

BY_KIND: Final = {resource.kind: resource for resource in (*CHILDREN, *OPTIONAL, PODS, SUPPORT_AGENTS)}


def resource_of(manifest: Manifest) -> Resource:
    """The resource a manifest belongs to."""
    return BY_KIND[manifest["kind"]]


class ObjectRef(NamedTuple):
    """Which object: kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def ref_of(manifest: Manifest) -> ObjectRef:
    """The reference to a manifest's object."""
    metadata = manifest["metadata"]
    return ObjectRef(manifest["kind"], metadata.get("namespace", ""), metadata["name"])
