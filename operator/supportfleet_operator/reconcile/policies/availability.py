"""Fewer pods are ready than the agent should have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from supportfleet_operator.api import LayerName
from supportfleet_operator.reconcile.policies.base import Finding, View
from supportfleet_operator.reconcile.policies.pods import SLOW, unready_hint

REASON: Final = "InsufficientReplicas"


def check(view: View) -> Finding | None:
    """Ready pods against the fixed number, or against the autoscaler's minimum, in each layer."""
    if view.deployment is None:
        return None
    for layer, available, wanted in counts(view):
        if available < wanted:
            message = f"{available} of {wanted} {of(layer)}pods are ready" + unready_hint(view)
            return Finding(REASON, message, stalled=False, recheck=SLOW)
    return None


def counts(view: View) -> Iterator[tuple[LayerName | None, int, int]]:
    """Ready and needed pods of the revision that serves, for customers and in each layer behind."""
    parts, gateways = view.observed.parts(view.serving), required(view)
    agent = view.observed.as_of(view.serving) if len(parts) > 1 and gateways else None
    for layer, deployment in parts.items():
        available = ((deployment or {}).get("status") or {}).get("availableReplicas", 0)
        behind = agent.spec.layers[layer].least if layer is not None and agent is not None else 0
        yield layer, available, gateways if layer is None else behind


def of(layer: LayerName | None) -> str:
    """Whose pods a message is about; nothing for those that customers reach."""
    return f"{layer} " if layer else ""


def required(view: View) -> int:
    """Pods that must be ready. Those that an autoscaler is adding at the moment don't count."""
    scaling = view.spec.autoscaling
    return int(scaling.min_replicas if scaling is not None else view.spec.replicas)
