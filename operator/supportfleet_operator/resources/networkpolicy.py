"""The network policies of an agent's pods."""

from copy import deepcopy
from typing import Any, Final

from supportfleet_operator.api import LAYERS, TOOLS, WORKER, LayerName, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import AGENT, COMPONENT, metadata, selector

NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The API server sets this label on every namespace."""

DNS_PORT: Final = 53

OPERATOR: Final[dict[str, Any]] = {
    "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "supportfleet-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "supportfleet-operator"}},
}
"""The operator's pods, as manifests/ installs them."""


def network_policy(agent: SupportAgent, *, layered: bool = False) -> dict[str, Any] | None:
    """The NetworkPolicy for pods of the agent, of its model sync and of its checklist; none where it is turned off.

    Layers have their own, so where there are any (``layered``) their pods are left out: policies add up.

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
    if layered:
        others = {"key": COMPONENT, "operator": "NotIn", "values": [*LAYERS]}
        spec["podSelector"]["matchExpressions"] = [others]
    _bound_egress(agent, spec, [*_own_pods(agent), *([_to_tools(agent)] if layered else [])])
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(agent, names.agent_name(agent)),
        "spec": spec,
    }


def layer_policy(agent: SupportAgent, revision: str, layer: LayerName) -> dict[str, Any] | None:
    """The NetworkPolicy for the pods of a revision's layer; none where it is turned off.

    Tools are open to the agent's own pods alone. Workers serve nobody: only who reads figures may reach them, which are
    the operator and the peers that the spec names, and not the whole namespace.
    """
    if not agent.spec.network_policy.enabled:
        return None
    peers = _readers(agent) if layer == WORKER else _callers(agent)
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": selector(agent, revision, layer)},
        "policyTypes": ["Ingress"],
    }
    if peers:
        spec["ingress"] = [{"from": peers, "ports": [{"protocol": "TCP", "port": names.HTTP_PORT}]}]
    _bound_egress(agent, spec, [_to_tools(agent)] if layer == WORKER and TOOLS in agent.spec.layers else [])
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(agent, names.of_layer(agent, revision, layer), layer, revision=revision),
        "spec": spec,
    }


def _bound_egress(agent: SupportAgent, spec: dict[str, Any], own: list[dict[str, Any]]) -> None:
    """Where ``allowEgress`` says what pods may open themselves, let them open that, names, and what is the agent's."""
    wanted = agent.spec.network_policy.allow_egress
    if wanted is not None:
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [_dns(), *own, *(rule.manifest() for rule in wanted)]


def _dns() -> dict[str, Any]:
    """Names are looked up wherever the cluster's DNS is."""
    return {"ports": [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]}


def _own_pods(agent: SupportAgent) -> list[dict[str, Any]]:
    """The checklist asks the revision's pods; nothing else of the agent's does."""
    return [] if agent.spec.rollout.checklist is None else [_to(selector(agent))]


def _to_tools(agent: SupportAgent) -> dict[str, Any]:
    """Workers call the tools layer, and gateways ask whether it is there."""
    return _to(selector(agent, component=TOOLS))


def _to(pods: dict[str, str]) -> dict[str, Any]:
    return {"to": [{"podSelector": {"matchLabels": pods}}]}


def _callers(agent: SupportAgent) -> list[dict[str, Any]]:
    """The agent's own pods that call tools, of any revision."""
    return [{"podSelector": {"matchLabels": selector(agent, component=one)}} for one in ("agent", WORKER)]


def _readers(agent: SupportAgent) -> list[dict[str, Any]]:
    """Who may read figures without being in the agent's namespace, or because the spec names them."""
    wanted = agent.spec.network_policy
    peers: list[dict[str, Any]] = []
    if wanted.allow_from_namespaces:
        chosen = {"key": NAMESPACE_NAME, "operator": "In", "values": list(wanted.allow_from_namespaces)}
        peers.append({"namespaceSelector": {"matchExpressions": [chosen]}})
    model = agent.spec.model
    if agent.spec.rollout.analysis is not None or (model is not None and model.hot):
        peers.append(deepcopy(OPERATOR))
    return [*peers, *(peer.manifest() for peer in wanted.allow_from or ())]


def _ingress(agent: SupportAgent) -> dict[str, Any]:
    """Who may send requests; a rule with no ``from`` lets everyone. The operator reads figures, where it needs any."""
    wanted = agent.spec.network_policy
    ports = [{"protocol": "TCP", "port": names.HTTP_PORT}]
    if agent.spec.service.type != "ClusterIP" and wanted.allow_from is None:
        return {"ports": ports}
    return {"from": [{"podSelector": {}}, *_readers(agent)], "ports": ports}
