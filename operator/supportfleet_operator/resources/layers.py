"""The layers behind an agent's gateway, where it has them: those who answer messages, and those who carry out tools.

Each layer of each revision is a Deployment of its own with its own autoscaler, so that it grows by its own load and
goes with its revision. What is shared with other revisions is the database alone.
"""

from dataclasses import dataclass

from supportfleet_operator.api import TOOLS, LayerName, SupportAgent
from supportfleet_operator.resources.deployment import deployment
from supportfleet_operator.resources.hpa import autoscaler
from supportfleet_operator.resources.manifests import Manifest, Manifests
from supportfleet_operator.resources.networkpolicy import layer_policy
from supportfleet_operator.resources.pdb import layer_budget
from supportfleet_operator.resources.roles import OF_LAYER
from supportfleet_operator.resources.service import tools_service


@dataclass(frozen=True, slots=True)
class LayerChildren(Manifests):
    """What one layer of a revision has. The network policy stands before there are pods."""

    network_policy: Manifest | None
    service: Manifest | None
    deployment: Manifest
    autoscaler: Manifest | None
    disruption_budget: Manifest | None

    first_replicas: int
    """Pods to create the Deployment with. It isn't in the manifest where the autoscaler owns it."""


def layer_children(
    agent: SupportAgent, revision: str, layer: LayerName, *, replicas: int, autoscaled: bool
) -> LayerChildren:
    """Render a layer with so many pods; with ``autoscaled``, and the layer's ``autoscaling``, as many at least."""
    role, wanted = OF_LAYER[layer], agent.spec.layers[layer]
    scaling = wanted.autoscaling if autoscaled and replicas else None
    least = min(replicas, scaling.max_replicas) if scaling else replicas
    most = scaling.max_replicas if scaling else replicas
    return LayerChildren(
        network_policy=layer_policy(agent, revision, layer),
        service=tools_service(agent, revision) if layer == TOOLS else None,
        deployment=deployment(agent, revision, None if scaling else replicas, role),
        autoscaler=autoscaler(agent, revision, scaling, least, role) if scaling else None,
        disruption_budget=layer_budget(agent, revision, layer) if most > 1 else None,
        first_replicas=least,
    )


def full_size(agent: SupportAgent) -> dict[LayerName, int]:
    """Pods of each layer beside a gateway that has all of the traffic, before any autoscaler has a say."""
    return {name: layer.first for name, layer in agent.spec.layers.items()}
