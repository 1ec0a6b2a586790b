"""The layers behind an agent's gateway: how many pods each has in each revision.

The rollout's decision knows the pods that customers reach. A canary's layers get the same share of theirs: its messages
wait in a queue of its own, so its workers have as much to do as it has requests. Those of the stable revision stay as
they are while another takes over, those of a revision on its way out until it goes, and none outlives its gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from supportfleet_operator.api import Layer, LayerName
from supportfleet_operator.cluster.resources import AUTOSCALERS, Manifest
from supportfleet_operator.reconcile.desired import LayerSizes
from supportfleet_operator.reconcile.observe import Observed, desired_replicas
from supportfleet_operator.rollout import Decision


def share(whole: int, gateway: int, gateways: int) -> int:
    """Pods of a layer beside so many of the gateway pods that all of the traffic needs: one at least, or none."""
    if gateway <= 0:
        return 0
    return max(1, min(whole, ceil(whole * gateway / max(gateway, gateways))))


def sizes(observed: Observed, decision: Decision, gateways: int) -> LayerSizes:
    """Pods for each layer of each revision that has any, where all of the traffic needs so many gateway pods."""
    found: dict[str, Mapping[LayerName, int]] = {}
    for revision in decision.scale:
        agent = observed.as_of(revision) if observed.is_layered(revision) else None
        if agent is not None:
            layers = agent.spec.layers.items()
            found[revision] = {name: _size(observed, decision, gateways, (revision, name), one) for name, one in layers}
    return found


def _size(observed: Observed, decision: Decision, gateways: int, which: tuple[str, LayerName], wanted: Layer) -> int:
    revision, name = which
    state, gateway, now = decision.state, decision.scale[revision].min_replicas, observed.layer(revision, name)
    if now is not None and _stays(observed, decision, revision):
        return max(1, _pods(now))
    if revision == state.stable and state.canary is None:
        return wanted.least
    needed = whole(observed, state.stable, name, wanted)
    return needed if revision == state.stable else share(needed, gateway, gateways)


def _stays(observed: Observed, decision: Decision, revision: str) -> bool:
    """Whether a revision's layers keep the pods they have: it goes, or the spec says nothing of layers any more."""
    if revision == decision.state.canary:
        return False
    is_told = observed.desired is not None and observed.desired.agent.spec.is_layered
    return revision != decision.state.stable or not is_told


def whole(observed: Observed, stable: str | None, name: LayerName, layer: Layer) -> int:
    """Pods that a layer needs for all of the traffic: a fixed number, or what stable's autoscaler came to."""
    scaling, serving = layer.autoscaling, observed.layer(stable or "", name)
    if scaling is None:
        return layer.replicas
    if serving is None:
        return layer.first
    scaler = observed.child_named(AUTOSCALERS.kind, serving["metadata"]["name"])
    return scaling.bounded(max(_pods(serving), desired_replicas(scaler)))


def _pods(deployment: Manifest) -> int:
    return int(deployment["spec"].get("replicas", 1))
