"""The Istio VirtualService of an agent: exact weights, and requests that are chosen by their headers.

Its destinations are the revisions' own Services, so it needs no subsets, and with those no DestinationRule.
"""

from typing import Any, Final

from supportfleet_operator.api import ISTIO, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.routing import Routing

MESH: Final = "mesh"
"""Istio's name for the sidecars' own requests."""


def virtual_service(agent: SupportAgent, routing: Routing) -> dict[str, Any] | None:
    """The VirtualService; none without Istio, and none while no revision serves.

    It holds for requests from the mesh to the agent's Service as well, whatever hosts and gateways there are: an agent
    that half of its clients reach past its weights would be measured on the other half alone.
    """
    traffic = agent.spec.traffic
    if traffic.provider != ISTIO or not routing.weights:
        return None
    own = names.agent_name(agent)
    hosts = traffic.hosts or ()
    spec: dict[str, Any] = {"hosts": [*hosts, *([] if own in hosts else [own])]}
    if traffic.gateways:
        spec["gateways"] = [*traffic.gateways, *([] if MESH in traffic.gateways else [MESH])]
    spec["http"] = _routes(agent, routing)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(agent, own),
        "spec": spec,
    }


def _routes(agent: SupportAgent, routing: Routing) -> list[dict[str, Any]]:
    """Matches first: the first route that fits a request is its route."""
    weighted = {
        "name": "weighted",
        "route": [
            _destination(agent, revision, weight) for revision, weight in sorted(routing.weights.items()) if weight > 0
        ],
    }
    if not agent.spec.rollout.match or routing.matched is None:
        return [weighted]
    matches = [match.manifest() for match in agent.spec.rollout.match]
    return [{"name": "matched", "match": matches, "route": [_destination(agent, routing.matched, 100)]}, weighted]


def _destination(agent: SupportAgent, revision: str, weight: int) -> dict[str, Any]:
    host = {"host": names.of_revision(agent, revision), "port": {"number": agent.spec.service.port}}
    return {"destination": host, "weight": weight}
