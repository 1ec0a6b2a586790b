"""The Istio VirtualService of an agent: exact weights, and requests that are chosen by their headers.

Its destinations are the revisions' own Services, so it needs no subsets.
"""

from typing import Any

from supportfleet_operator.api import ISTIO, SupportAgent
from supportfleet_operator.api.traffic import MESH
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.routes import Destination, Route, response_headers, routes
from supportfleet_operator.resources.routing import Routing


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
    spec["http"] = [_http(agent, route) for route in routes(agent, routing)]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": metadata(agent, own),
        "spec": spec,
    }


def _http(agent: SupportAgent, route: Route) -> dict[str, Any]:
    http: dict[str, Any] = {"name": route.name}
    if route.matches:
        http["match"] = [match.manifest() for match in route.matches]
    http["route"] = [_destination(agent, destination) for destination in route.destinations]
    if route.mirror is not None:
        revision, percent = route.mirror
        http["mirror"] = _host(agent, revision)
        http["mirrorPercentage"] = {"value": percent}
    return http


def _destination(agent: SupportAgent, destination: Destination) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "destination": _host(agent, destination.revision),
        "weight": destination.weight,
    }
    if told := response_headers(destination):
        rendered["headers"] = {"response": told}
    return rendered


def _host(agent: SupportAgent, revision: str) -> dict[str, Any]:
    return {"host": names.of_revision(agent, revision), "port": {"number": agent.spec.service.port}}
