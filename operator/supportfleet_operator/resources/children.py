"""Everything that an agent wants to exist."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources.configmap import config_map
from supportfleet_operator.resources.deployment import deployment, first_replicas
from supportfleet_operator.resources.hpa import autoscaler
from supportfleet_operator.resources.model_job import model_job
from supportfleet_operator.resources.model_pvc import model_claim
from supportfleet_operator.resources.networkpolicy import network_policy
from supportfleet_operator.resources.pdb import disruption_budget
from supportfleet_operator.resources.service import service
from supportfleet_operator.resources.serviceaccount import service_account

Manifest = dict[str, Any]


class ChildKind(NamedTuple):
    """A kind of object that agents own."""

    api_version: str
    kind: str
    plural: str


CHILD_KINDS: Final = (
    ChildKind("v1", "ServiceAccount", "serviceaccounts"),
    ChildKind("v1", "ConfigMap", "configmaps"),
    ChildKind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    ChildKind("v1", "Service", "services"),
    ChildKind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ChildKind("batch/v1", "Job", "jobs"),
    ChildKind("apps/v1", "Deployment", "deployments"),
    ChildKind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ChildKind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
)
"""Every kind that children are of, in the order in which they are applied."""


@dataclass(frozen=True, slots=True)
class Children:
    """The whole desired set, in the order in which it is applied; None for what the agent doesn't want.

    The network policy stands before there are pods, and the Deployment waits for the model Job.
    """

    service_account: Manifest
    config_map: Manifest
    network_policy: Manifest | None
    service: Manifest
    model_claim: Manifest | None
    model_job: Manifest | None
    deployment: Manifest
    disruption_budget: Manifest | None
    autoscaler: Manifest | None

    first_replicas: int
    """``spec.replicas`` to create the Deployment with. It isn't in the manifest where the autoscaler owns it."""

    def __iter__(self) -> Iterator[Manifest]:
        """The manifests that are wanted, in order."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                yield value


def children(agent: SupportAgent) -> Children:
    """Render an agent: the same spec gives the same manifests, always."""
    return Children(
        service_account=service_account(agent),
        config_map=config_map(agent),
        network_policy=network_policy(agent),
        service=service(agent),
        model_claim=model_claim(agent),
        model_job=model_job(agent),
        deployment=deployment(agent),
        disruption_budget=disruption_budget(agent),
        autoscaler=autoscaler(agent),
        first_replicas=first_replicas(agent),
    )
