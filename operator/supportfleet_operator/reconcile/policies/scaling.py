"""The autoscaler's own state, as the condition ScalingActive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from supportfleet_operator.api.scaling import Autoscaling
from supportfleet_operator.cluster.resources import AUTOSCALERS, Manifest
from supportfleet_operator.reconcile.policies.base import View, condition
from supportfleet_operator.reconcile.policies.pods import shorten
from supportfleet_operator.resources import names

PENDING: Final = "AutoscalerPending"
NO_METRICS: Final = frozenset({"FailedGetResourceMetric", "FailedGetExternalMetric", "InvalidMetricSourceType"})
QUEUE_DEPTH: Final = (
    "; {field}.targetQueueDepth has no effect yet: it is served by the external metrics adapter, which is not installed"
)


class Scaling(NamedTuple):
    """Status, reason and message of ScalingActive."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def check(view: View) -> Scaling | None:
    """What the HorizontalPodAutoscalers say of themselves; None without any, or while suspended.

    Of several the first that does not scale is told, or all.
    """
    if view.spec.suspend:
        return None
    found = [_of(field, wanted, live) for field, wanted, live in _autoscalers(view)]
    trouble = next((one for one in found if one.status != "True"), None)
    if trouble is not None or len(found) <= 1:
        return trouble or next(iter(found), None)
    return found[0]._replace(message="; ".join(one.message for one in found))


def _autoscalers(view: View) -> Iterator[tuple[str, Autoscaling, Manifest | None]]:
    """The fields that ask for one, and what there is of it for the revision that serves."""
    if (wanted := view.spec.autoscaling) is not None:
        yield "spec.autoscaling", wanted, view.observed.of_revision(AUTOSCALERS.kind, view.serving)
    for name, layer in view.spec.layers.items():
        if layer.autoscaling is not None:
            own = names.of_layer(view.observed.desired.agent, view.serving, name) if view.observed.desired else ""
            yield f"spec.{name}.autoscaling", layer.autoscaling, view.observed.child_named(AUTOSCALERS.kind, own)


def _of(field: str, wanted: Autoscaling, live: Manifest | None) -> Scaling:
    """What one of them says."""
    suffix = QUEUE_DEPTH.format(field=field) if wanted.target_queue_depth is not None else ""
    active = condition(live, "ScalingActive")
    if active is None:
        return Scaling("Unknown", PENDING, "the autoscaler has not looked at the pods yet" + suffix)
    if active["status"] == "True":
        whose = "" if field == "spec.autoscaling" else f"{field.split('.')[1]}: "
        return Scaling(
            "True",
            active.get("reason") or "ValidMetricFound",
            f"{whose}between {wanted.min_replicas} and {wanted.max_replicas} pods at "
            f"{wanted.target_cpu_utilization_percentage} % CPU" + suffix,
        )
    reason = active.get("reason") or "Inactive"
    remedy = (
        f"{field}: the autoscaler gets no figures: metrics-server must be installed, and pods must be ready: "
        if reason in NO_METRICS
        else f"{field}: "
    )
    return Scaling(active["status"], reason, remedy + shorten(active.get("message", "")) + suffix)
