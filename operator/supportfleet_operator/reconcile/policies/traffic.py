"""Whether requests go where the rollout says, as the condition TrafficRouted."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from supportfleet_operator.api import ISTIO
from supportfleet_operator.cluster.resources import SERVICES, VIRTUAL_SERVICES, ObjectRef
from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.policies.base import View
from supportfleet_operator.reconcile.policies.child_problem import settled_conflicts

NOT_INSTALLED: Final = "IstioNotInstalled"
ROUTED: Final = "Routed"
WAITING: Final = "NoRevisionReady"


class Routed(NamedTuple):
    """Status, reason and message of TrafficRouted."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def check(view: View) -> Routed | None:
    """Whether the routes are as the weights say; None where nothing but Services routes."""
    observed = view.observed
    if observed.desired is None or view.decision is None or view.spec.traffic.provider != ISTIO:
        return None
    if VIRTUAL_SERVICES.kind not in observed.served:
        return Routed(
            "False",
            NOT_INSTALLED,
            "spec.traffic.provider: the cluster serves no networking.istio.io/v1 VirtualService: install Istio, or set "
            "the provider to None; until then the stable revision serves all requests, and a Canary waits",
        )
    problems = [*view.problems, *settled_conflicts(view)]
    failed = next((one for one in problems if is_traffic(one.ref, observed)), None)
    if failed is not None:
        return Routed("False", failed.kind, failed.message)
    weights = {name: weight for name, weight in sorted(view.decision.weights.items()) if weight > 0}
    if not weights or view.decision.state.stable is None:
        return Routed("False", WAITING, "no revision is ready for requests yet")
    shares = ", ".join(f"{weight} % to {name}" for name, weight in weights.items())
    return Routed("True", ROUTED, f"VirtualService {observed.desired.agent.metadata.name!r} sends {shares}")


def is_traffic(ref: ObjectRef, observed: Observed) -> bool:
    """Whether a child decides which revision gets a request."""
    return ref.kind in {SERVICES.kind, VIRTUAL_SERVICES.kind} and ref.name == observed.agent["metadata"]["name"]
