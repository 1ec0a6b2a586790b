"""Whether requests go where the rollout says, as the condition TrafficRouted."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from supportfleet_operator.api import GATEWAY_API, ISTIO
from supportfleet_operator.cluster.resources import (
    HTTP_ROUTES,
    SERVICES,
    VIRTUAL_SERVICES,
    Manifest,
    ObjectRef,
    Resource,
)
from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.policies.base import View, condition
from supportfleet_operator.reconcile.policies.child_problem import settled_conflicts

ROUTED: Final = "Routed"
WAITING: Final = "NoRevisionReady"
NOT_ACCEPTED: Final = "RouteNotAccepted"
PENDING: Final = "RoutePending"


class Kind(NamedTuple):
    """What a provider routes with."""

    route: Resource
    absent: str
    """The reason where the cluster does not have it."""
    remedy: str


KINDS: Final = {
    ISTIO: Kind(VIRTUAL_SERVICES, "IstioNotInstalled", "install Istio"),
    GATEWAY_API: Kind(
        HTTP_ROUTES, "GatewayAPINotInstalled", "install the Gateway API's CustomResourceDefinitions and a controller"
    ),
}
ROUTE_KINDS: Final = frozenset({SERVICES.kind, *(kind.route.kind for kind in KINDS.values())})


class Routed(NamedTuple):
    """Status, reason and message of TrafficRouted."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def check(view: View) -> Routed | None:
    """Whether the routes are as the weights say; None where nothing but Services routes."""
    observed = view.observed
    if observed.desired is None or view.decision is None:
        return None
    kind = KINDS.get(view.spec.traffic.provider)
    if kind is None:
        return None
    if kind.route.kind not in observed.served:
        return Routed("False", kind.absent, _absent(kind))
    problems = [*view.problems, *settled_conflicts(view)]
    failed = next((one for one in problems if is_traffic(one.ref, observed)), None)
    if failed is not None:
        return Routed("False", failed.kind, failed.message)
    weights = {name: weight for name, weight in sorted(view.decision.weights.items()) if weight > 0}
    if not weights or view.decision.state.stable is None:
        return Routed("False", WAITING, "no revision is ready for requests yet")
    shares = ", ".join(f"{weight} % to {name}" for name, weight in weights.items())
    name = observed.desired.agent.metadata.name
    refused = _refused(observed.child_named(kind.route.kind, name)) if kind.route is HTTP_ROUTES else None
    return refused or Routed("True", ROUTED, f"{kind.route.kind} {name!r} sends {shares}")


def is_traffic(ref: ObjectRef, observed: Observed) -> bool:
    """Whether a child decides which revision gets a request."""
    return ref.kind in ROUTE_KINDS and ref.name == observed.agent["metadata"]["name"]


def _absent(kind: Kind) -> str:
    return (
        f"spec.traffic.provider: the cluster serves no {kind.route.api_version} {kind.route.kind}: {kind.remedy}, or "
        "set the provider to None; until then the stable revision serves all requests, and a Canary or ABTest waits"
    )


def _refused(route: Manifest | None) -> Routed | None:
    """What the Gateways' controllers say of an HTTPRoute; None where all of them took it."""
    parents = ((route or {}).get("status") or {}).get("parents") or ()
    if not parents:
        message = "spec.traffic.gateways: no controller has looked at the HTTPRoute: is there one for these Gateways?"
        return Routed("Unknown", PENDING, message)
    for parent in parents:
        for kind in ("Accepted", "ResolvedRefs"):
            said = condition({"status": parent}, kind)
            if said is not None and said["status"] == "False":
                gateway = (parent.get("parentRef") or {}).get("name", "")
                why = f"{said.get('reason', '')}: {said.get('message', '')}".strip(": ")
                return Routed("False", NOT_ACCEPTED, f"spec.traffic.gateways: Gateway {gateway!r} refuses it: {why}")
    return None
