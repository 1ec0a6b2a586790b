"""Everything that an agent wants to exist: what its revisions share, and what each of them has for itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from supportfleet_operator.api import Artifact, LayerName, SupportAgent
from supportfleet_operator.resources.configmap import config_map
from supportfleet_operator.resources.deployment import deployment
from supportfleet_operator.resources.destinationrule import destination_rule
from supportfleet_operator.resources.hpa import autoscaler
from supportfleet_operator.resources.httproute import http_route
from supportfleet_operator.resources.layers import LayerChildren, full_size, layer_children
from supportfleet_operator.resources.manifests import Manifest, Manifests
from supportfleet_operator.resources.model_job import model_job
from supportfleet_operator.resources.model_pointer import model_pointer
from supportfleet_operator.resources.model_pvc import model_claim
from supportfleet_operator.resources.networkpolicy import network_policy
from supportfleet_operator.resources.pdb import disruption_budget
from supportfleet_operator.resources.roles import reached
from supportfleet_operator.resources.routing import Routing
from supportfleet_operator.resources.service import revision_service, service
from supportfleet_operator.resources.serviceaccount import service_account
from supportfleet_operator.resources.virtualservice import virtual_service


class ChildKind(NamedTuple):
    """A kind of object that agents own."""

    api_version: str
    kind: str
    plural: str


CHILD_KINDS: Final = (
    ChildKind("apps/v1", "ControllerRevision", "controllerrevisions"),
    ChildKind("v1", "ServiceAccount", "serviceaccounts"),
    ChildKind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    ChildKind("v1", "ConfigMap", "configmaps"),
    ChildKind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ChildKind("batch/v1", "Job", "jobs"),
    ChildKind("apps/v1", "Deployment", "deployments"),
    ChildKind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ChildKind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ChildKind("v1", "Service", "services"),
    ChildKind("networking.istio.io/v1", "DestinationRule", "destinationrules"),
    ChildKind("networking.istio.io/v1", "VirtualService", "virtualservices"),
    ChildKind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
)
"""Every kind that children are of. Those of Istio and of the Gateway API exist only where they are installed."""


@dataclass(frozen=True, slots=True)
class SharedChildren(Manifests):
    """What all revisions share. The network policy stands before there are pods."""

    service_account: Manifest
    network_policy: Manifest | None
    model_claim: Manifest | None
    disruption_budget: Manifest | None
    service: Manifest
    model_pointer: Manifest | None
    virtual_service: Manifest | None
    http_route: Manifest | None


@dataclass(frozen=True, slots=True)
class RevisionChildren(Manifests):
    """What one revision has. Its Deployment waits for its model Job.

    The claim and the Job can be the same objects for several revisions; they are then rendered alike.
    """

    config_map: Manifest
    service: Manifest
    destination_rule: Manifest | None
    model_claim: Manifest | None
    model_job: Manifest | None
    layers: tuple[LayerChildren, ...]
    """Those behind the gateway, where there are any, come first: it is of no use without them."""
    deployment: Manifest
    autoscaler: Manifest | None

    first_replicas: int
    """``spec.replicas`` to create the Deployment with. It isn't in the manifest where the autoscaler owns it."""
    model_job_name: str | None
    """Name of the Job that proves the revision's model, whether or not it is wanted now."""

    def first_replicas_of(self, deployment: str) -> int:
        """The same of the Deployment with this name, which may be a layer's."""
        others = {one.deployment["metadata"]["name"]: one.first_replicas for one in self.layers}
        return others.get(deployment, self.first_replicas)


def shared_children(
    agent: SupportAgent, routing: Routing, hot: Artifact | None = None, *, layered: bool | None = None
) -> SharedChildren:
    """Render what an agent's revisions share, for requests that go where ``routing`` says.

    ``hot`` is the artifact that pods with a hot model load now: the one that a model Job verified last. ``layered``
    says whether any revision has layers; where nothing is said, whether the spec asks for them.
    """
    return SharedChildren(
        service_account=service_account(agent),
        network_policy=network_policy(agent, layered=agent.spec.is_layered if layered is None else layered),
        model_claim=model_claim(agent),
        disruption_budget=disruption_budget(agent),
        service=service(agent, routing.service),
        model_pointer=model_pointer(agent, hot) if hot is not None else None,
        virtual_service=virtual_service(agent, routing),
        http_route=http_route(agent, routing),
    )


def revision_children(
    agent: SupportAgent,
    revision: str,
    *,
    replicas: int,
    autoscaled: bool,
    layers: Mapping[LayerName, int] | None = None,
) -> RevisionChildren:
    """Render one revision of an agent, which has the revision's behaviour (``at_revision``).

    ``replicas`` is how many pods its traffic needs; with ``autoscaled``, and ``spec.autoscaling``, it is how many at
    least. ``layers`` says the same of those behind the gateway, which have all of their pods where nothing is said, and
    none beside a gateway that has none. A revision with none keeps what it takes to come back, and neither an
    autoscaler, which would start pods, nor a model Job, which it must not wait for.
    """
    pods = 0 if agent.spec.suspend else replicas
    scaling = agent.spec.autoscaling if autoscaled and pods else None
    least = min(pods, scaling.max_replicas) if scaling else pods
    job = model_job(agent)
    sizes = full_size(agent) if layers is None else layers
    return RevisionChildren(
        config_map=config_map(agent, revision),
        service=revision_service(agent, revision),
        destination_rule=destination_rule(agent, revision) if pods else None,
        model_claim=model_claim(agent) if pods else None,
        model_job=job if pods else None,
        layers=tuple(
            layer_children(agent, revision, name, replicas=sizes[name] if pods else 0, autoscaled=autoscaled)
            for name in agent.spec.layers
        ),
        deployment=deployment(agent, revision, None if scaling else pods),
        autoscaler=autoscaler(agent, revision, scaling, least, reached(agent)) if scaling else None,
        first_replicas=least,
        model_job_name=job["metadata"]["name"] if job else None,
    )
