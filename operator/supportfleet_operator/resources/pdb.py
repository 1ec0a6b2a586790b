"""The disruption budgets of an agent."""

from typing import Any

from supportfleet_operator.api import LayerName, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata, selector


def disruption_budget(agent: SupportAgent) -> dict[str, Any] | None:
    """The PodDisruptionBudget; none for an agent that never has more than one pod, whose node could not be drained.

    Pods that are not ready may always be evicted: they serve nobody, and a broken agent must not hold up a drain.
    """
    if agent.spec.max_pods <= 1:
        return None
    wanted = agent.spec.availability
    budget = {"minAvailable": wanted.min_available}
    if wanted.min_available is None:
        budget = {"maxUnavailable": 1 if wanted.max_unavailable is None else wanted.max_unavailable}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(agent, names.agent_name(agent)),
        "spec": {
            "selector": {"matchLabels": selector(agent)},
            **budget,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def layer_budget(agent: SupportAgent, revision: str, layer: LayerName) -> dict[str, Any]:
    """The PodDisruptionBudget of a revision's layer. ``minAvailable`` is about the pods that customers reach."""
    wanted = agent.spec.availability.max_unavailable
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(agent, names.of_layer(agent, revision, layer), layer, revision=revision),
        "spec": {
            "selector": {"matchLabels": selector(agent, revision, layer)},
            "maxUnavailable": 1 if wanted is None else wanted,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
