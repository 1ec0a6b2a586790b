"""The Gateway API HTTPRoute of an agent: what the VirtualService does with Istio, for any implementation.

Its rules stand in the order in which they are meant to be tried. The Gateway API itself prefers the rule with more
headers, then the earlier one; stickiness has one header, and the route of all others none, so that comes to the same.
"""

import re
from typing import Any, Final

from supportfleet_operator.api import GATEWAY_API, HeaderMatch, StringMatch, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.routes import Destination, Route, response_headers, routes
from supportfleet_operator.resources.routing import Routing

NOT_LITERAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
"""What has a meaning in an RE2 expression."""


def http_route(agent: SupportAgent, routing: Routing) -> dict[str, Any] | None:
    """The HTTPRoute; none without the Gateway API, and none while no revision serves.

    The agent's Service is one of its parents, so that it holds for the mesh too, where the implementation has one.
    """
    traffic = agent.spec.traffic
    if traffic.provider != GATEWAY_API or not routing.weights:
        return None
    gateways = [_gateway(name) for name in traffic.gateways or ()]
    spec: dict[str, Any] = {"parentRefs": [*gateways, _mesh(agent)]}
    if traffic.hosts:
        spec["hostnames"] = list(traffic.hosts)
    spec["rules"] = [_rule(agent, route) for route in routes(agent, routing)]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(agent, names.agent_name(agent)),
        "spec": spec,
    }


def _gateway(name: str) -> dict[str, Any]:
    namespace, _, own = name.rpartition("/")
    return {"name": own, "namespace": namespace} if namespace else {"name": own}


def _mesh(agent: SupportAgent) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": names.agent_name(agent), "port": agent.spec.service.port}


def _rule(agent: SupportAgent, route: Route) -> dict[str, Any]:
    rule: dict[str, Any] = {"name": route.name}
    if route.matches:
        rule["matches"] = [_match(match) for match in route.matches]
    if route.mirror is not None:
        revision, percent = route.mirror
        mirror = {"backendRef": _backend(agent, revision), "percent": percent}
        rule["filters"] = [{"type": "RequestMirror", "requestMirror": mirror}]
    rule["backendRefs"] = [_destination(agent, destination) for destination in route.destinations]
    return rule


def _match(match: HeaderMatch) -> dict[str, Any]:
    return {"headers": [_header(name, value) for name, value in sorted(match.headers.items())]}


def _header(name: str, value: StringMatch) -> dict[str, str]:
    """Beginnings are expressions here. Whether an expression is for the whole value is up to the implementation."""
    if value.exact is not None:
        return {"type": "Exact", "name": name, "value": value.exact}
    text = value.regex if value.regex is not None else f"{_literal(value.prefix or '')}.*"
    return {"type": "RegularExpression", "name": name, "value": f"^(?:{text})$"}


def _literal(text: str) -> str:
    return NOT_LITERAL.sub(r"\\\g<0>", text)


def _destination(agent: SupportAgent, destination: Destination) -> dict[str, Any]:
    backend = {**_backend(agent, destination.revision), "weight": destination.weight}
    told = {
        how: [{"name": name, "value": value} for name, value in headers.items()]
        for how, headers in response_headers(destination).items()
    }
    if told:
        backend["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": told}]
    return backend


def _backend(agent: SupportAgent, revision: str) -> dict[str, Any]:
    return {"name": names.of_revision(agent, revision), "port": agent.spec.service.port}
