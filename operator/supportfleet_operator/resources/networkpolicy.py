"""The network policy of an agent's pods."""

from copy import deepcopy
from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import AGENT, metadata, selector

NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The API server sets this label on every namespace."""

DNS_PORT: Final = 53

OPERATOR: Final[dict[str, Any]] = {
    "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "supportfleet-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "supportfleet-operator"}},
}
"""The operator's pods, as manifests/ installs them."""


def network_policy(agent: SupportAgent) -> dict[str, Any] | None:
    """The NetworkPolicy for pods of the agent, of its model sync and of its checklist; none where it is turned off.

    Only the runtime's port is open, and only to the agent's own namespace and to those that the spec names. What the
    pods may open themselves is left alone until ``allowEgress`` says otherwise: a rule of ours could not know where the
    database, the bucket and the Claude API are.
    """
    wanted = agent.spec.network_policy
    if not wanted.enabled:
        return None
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": {AGENT: agent.metadata.name}},
        "policyTypes": ["Ingress"],
        "ingress": [_ingress(agent)],
    }
    if wanted.allow_egress is not None:
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [_dns(), *_own_pods(agent), *(rule.manifest() for rule in wanted.allow_egress)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(agent, names.agent_name(agent)),
        "spec": spec,
    }


def _dns() -> dict[str, Any]:
    """Names are looked up wherever the cluster's DNS is."""
    return {"ports": [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]}


def _own_pods(agent: SupportAgent) -> list[dict[str, Any]]:
    """The checklist asks the revision's pods; nothing else of the agent's does."""
    if agent.spec.rollout.checklist is None:
        return []
    return [{"to": [{"podSelector": {"matchLabels": selector(agent)}}]}]


def _ingress(agent: SupportAgent) -> dict[str, Any]:
    """Who may send requests; a rule with no ``from`` lets everyone. The operator reads figures, where it needs any."""
    wanted = agent.spec.network_policy
    ports = [{"protocol": "TCP", "port": names.HTTP_PORT}]
    if agent.spec.service.type != "ClusterIP" and wanted.allow_from is None:
        return {"ports": ports}
    peers: list[dict[str, Any]] = [{"podSelector": {}}]
    if wanted.allow_from_namespaces:
        chosen = {"key": NAMESPACE_NAME, "operator": "In", "values": list(wanted.allow_from_namespaces)}
        peers.append({"namespaceSelector": {"matchExpressions": [chosen]}})
    model = agent.spec.model
    if agent.spec.rollout.analysis is not None or (model is not None and model.hot):
        peers.append(deepcopy(OPERATOR))
    peers += [peer.manifest() for peer in wanted.allow_from or ()]
    return {"from": peers, "ports": ports}
