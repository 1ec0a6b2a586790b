"""The autoscaler's own state, as the condition ScalingActive."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from supportfleet_operator.cluster.resources import AUTOSCALERS
from supportfleet_operator.reconcile.policies.base import View, condition
from supportfleet_operator.reconcile.policies.pods import shorten

PENDING: Final = "AutoscalerPending"
NO_METRICS: Final = frozenset({"FailedGetResourceMetric", "FailedGetExternalMetric", "InvalidMetricSourceType"})
QUEUE_DEPTH: Final = (
    "; spec.autoscaling.targetQueueDepth has no effect yet: it is served by the external metrics adapter, "
    "which is not installed"
)


class Scaling(NamedTuple):
    """Status, reason and message of ScalingActive."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def check(view: View) -> Scaling | None:
    """What the HorizontalPodAutoscaler says of itself; None without ``spec.autoscaling`` or while suspended."""
    wanted = view.spec.autoscaling
    if wanted is None or view.spec.suspend:
        return None
    suffix = QUEUE_DEPTH if wanted.target_queue_depth is not None else ""
    active = condition(view.observed.of_revision(AUTOSCALERS.kind, view.serving), "ScalingActive")
    if active is None:
        return Scaling("Unknown", PENDING, "the autoscaler has not looked at the pods yet" + suffix)
    if active["status"] == "True":
        return Scaling(
            "True",
            active.get("reason") or "ValidMetricFound",
            f"between {wanted.min_replicas} and {wanted.max_replicas} pods at "
            f"{wanted.target_cpu_utilization_percentage} % CPU" + suffix,
        )
    reason = active.get("reason") or "Inactive"
    remedy = (
        "spec.autoscaling: the autoscaler gets no figures: metrics-server must be installed, and pods must be ready: "
        if reason in NO_METRICS
        else "spec.autoscaling: "
    )
    return Scaling(active["status"], reason, remedy + shorten(active.get("message", "")) + suffix)
