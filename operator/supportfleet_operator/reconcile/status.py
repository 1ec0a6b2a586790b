"""Report what was found: one status, written once and only when it differs, and Events for what changed in it.

``Reconciling`` and ``Stalled`` follow kstatus: they are present only while they hold, and at most one of them does.
A condition's ``lastTransitionTime`` moves only when its status does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from supportfleet_operator.api import (
    ACCEPTED,
    LAYERS,
    MODEL_SYNCED,
    PROGRESSING,
    READY,
    RECONCILING,
    SCALING_ACTIVE,
    STALLED,
    TRAFFIC_ROUTED,
    Condition,
    LayerName,
    LayerStatus,
    ModelStatus,
    Phase,
    RolloutStatus,
    SupportAgentStatus,
)
from supportfleet_operator.cluster.recorder import News
from supportfleet_operator.reconcile import channels, hot
from supportfleet_operator.reconcile.desired import verified
from supportfleet_operator.reconcile.policies import (
    availability,
    invalid_spec,
    missing_reference,
    model_sync,
    scaling,
    traffic,
)
from supportfleet_operator.reconcile.policies.base import Finding, View, condition
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.reconcile.policies.suspended import REASON as SUSPENDED
from supportfleet_operator.resources import selector_text
from supportfleet_operator.rollout import Decision

OURS: Final = (READY, ACCEPTED, MODEL_SYNCED, SCALING_ACTIVE, PROGRESSING, TRAFFIC_ROUTED, RECONCILING, STALLED)
"""The conditions that the operator writes, in their order."""
STANDING: Final = frozenset({"Idle", "Paused", "RolledBack"})
"""Phases in which a rollout does not move by itself."""
COMPLETE_MESSAGE: Final = "the stable revision is the spec's"
AVAILABLE: Final = "Available"
VALID: Final = "Valid"
NEWSWORTHY: Final = (READY, ACCEPTED, MODEL_SYNCED, TRAFFIC_ROUTED)
DIGEST_SHOWN: Final = len("sha256:") + 12

Truth = Literal["True", "False", "Unknown"]
Told = tuple[Truth, str, str]
"""Status, reason and message of a condition."""


def status_of(view: View, gate: Gate, finding: Finding | None) -> dict[str, Any]:
    """The status that the agent should have."""
    observed = view.observed
    deployments = [one.get("status") or {} for one in observed.deployments.values()]
    newest = (view.newest or {}).get("status") or {}
    told = dict(_conditions(view, gate, finding))
    before = {one["type"]: one for one in (observed.agent.get("status") or {}).get("conditions") or ()}
    generation = int(observed.agent["metadata"].get("generation", 0))
    desired = observed.desired
    return SupportAgentStatus(
        observed_generation=generation,
        phase=_phase(view, gate, finding),
        replicas=sum(one.get("replicas", 0) for one in deployments),
        ready_replicas=sum(one.get("readyReplicas", 0) for one in deployments),
        updated_replicas=newest.get("updatedReplicas", 0),
        selector=selector_text(desired.agent) if desired else (observed.agent.get("status") or {}).get("selector"),
        layers=_layers(view) or None,
        model=_model(view, gate),
        rollout=_rollout(view),
        conditions=tuple(
            _condition(kind, told[kind], before.get(kind), generation, view.now) for kind in OURS if kind in told
        ),
    ).manifest()


def intent_of(agent: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The status as it is, with the rollout's new state: written before anything is done about it."""
    status = agent.get("status") or {}
    ours = [one for one in status.get("conditions") or () if one["type"] in OURS]
    rest = {key: value for key, value in status.items() if key != "conditions"}
    return rest | ({"conditions": ours} if ours else {}) | {"rollout": decision.state.to_status().manifest()}


def is_current(agent: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the agent has this status already; conditions of other writers don't count."""
    return _ours(agent.get("status") or {}) == _ours(status)


def news(agent: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[News]:
    """Events for the conditions whose status or reason changed."""
    stalled = condition({"status": status}, STALLED) is not None
    for kind in NEWSWORTHY:
        now, before = condition({"status": status}, kind), condition(agent, kind)
        if now is None or (before and (before["status"], before["reason"]) == (now["status"], now["reason"])):
            continue
        if before is None and kind == ACCEPTED and now["status"] == "True":
            continue  # no news: it is what one expects of a new agent
        bad = now["status"] == "False" and (stalled or kind == ACCEPTED)
        yield News("Warning" if bad else "Normal", now["reason"], f"{kind}: {now['message']}")


def _conditions(view: View, gate: Gate, finding: Finding | None) -> Iterator[tuple[str, Told]]:
    yield READY, ("False", finding.reason, finding.message) if finding else ("True", AVAILABLE, _praise(view))
    yield ACCEPTED, _accepted(view)
    if model := _model_synced(view, gate, finding):
        yield MODEL_SYNCED, model
    if view.observed.desired is not None and (active := scaling.check(view)):
        yield SCALING_ACTIVE, (active.status, active.reason, active.message)
    if view.decision is not None and finding is not None and finding.reason == SUSPENDED:
        yield PROGRESSING, ("False", finding.reason, finding.message)
    elif view.decision is not None:
        yield PROGRESSING, _progressing(view.decision, finding)
    if routed := traffic.check(view):
        yield TRAFFIC_ROUTED, (routed.status, routed.reason, routed.message)
    if finding and finding.stalled:
        yield STALLED, ("True", finding.reason, finding.message)
    elif finding and finding.reason != SUSPENDED:
        yield RECONCILING, ("True", finding.reason, finding.message)


def _accepted(view: View) -> Told:
    for check in (invalid_spec.check, missing_reference.check):
        if found := check(view):
            return "False", found.reason, found.message
    return "True", VALID, "the spec is valid, and everything it refers to exists"


def _model_synced(view: View, gate: Gate, finding: Finding | None) -> Told | None:
    """Where the model stands; what nobody looks at while the agent is suspended or invalid stays as it was."""
    desired = view.observed.desired
    if desired is None or (desired.source.spec.model is not None and gate.state == "NotNeeded"):
        before = condition(view.observed.agent, MODEL_SYNCED)
        return (before["status"], before["reason"], before["message"]) if before else None
    if desired.source.spec.model is None:
        return None
    if gate.is_open:
        return "True", gate.reason, gate.message
    if gate.reason == model_sync.DOWNLOADING and finding and finding.reason != model_sync.NOT_READY:
        return "False", finding.reason, finding.message  # what keeps the sync's own pod from running
    return "False", gate.reason, gate.message


def _progressing(decision: Decision, finding: Finding | None) -> Told:
    """Whether the rollout moves by itself; False where it is over, waits for a person, or was rolled back."""
    state = decision.state
    if state.phase in STANDING:
        return "False", state.reason or state.phase, state.message or COMPLETE_MESSAGE
    if state.stable is None and finding is not None and finding.stalled:
        return "False", finding.reason, finding.message
    return "True", state.reason or state.phase, state.message or f"the rollout is {state.phase}"


def _rollout(view: View) -> RolloutStatus | None:
    """The rollout's state; what a spec that is not valid left of it stays."""
    if view.decision is None:
        before = (view.observed.agent.get("status") or {}).get("rollout")
        return RolloutStatus.model_validate(before) if before else None
    return view.decision.state.to_status()


def _praise(view: View) -> str:
    (_, available, wanted), *behind = availability.counts(view)
    layers = "".join(f", {ready} of {needed} in {name}" for name, ready, needed in behind)
    model = view.spec.model.artifact if view.spec.model else None
    on = f" on model {model.version!r} ({model.digest[:DIGEST_SHOWN]}…)" if model else ""
    return f"{available} pods are ready, {wanted} are needed{layers}{on}"


def _layers(view: View) -> tuple[LayerStatus, ...]:
    """The layers that the spec asks for, or that any revision still has pods in."""
    desired, found = view.observed.desired, dict[LayerName, list[Mapping[str, Any]]]()
    for (_, name), deployment in view.observed.layers.items():
        found.setdefault(name, []).append(deployment.get("status") or {})
    if desired is not None and not desired.agent.spec.is_layered:
        found = {name: told for name, told in found.items() if any(one.get("replicas") for one in told)}
    return tuple(
        LayerStatus(
            name=name,
            replicas=sum(one.get("replicas", 0) for one in found[name]),
            ready_replicas=sum(one.get("readyReplicas", 0) for one in found[name]),
        )
        for name in LAYERS
        if name in found
    )


def _model(view: View, gate: Gate) -> ModelStatus | None:
    """The model of the revision that serves, the ready pods that have it, and where the spec's channel points."""
    observed = view.observed
    before = (observed.agent.get("status") or {}).get("model") or {}
    if observed.desired is None:
        return ModelStatus.model_validate(before) if before else None
    channel = channels.status_fields(observed, view.following or channels.NOTHING)
    found = _artifact(view, gate)
    if found is None:
        return ModelStatus.model_validate(channel) if any(channel.values()) else None
    version, digest = found
    loaded = hot.loaded_pods(observed, digest)
    return ModelStatus.model_validate({"version": version, "digest": digest, "loadedPods": loaded, **channel})


def _artifact(view: View, gate: Gate) -> tuple[str, str] | None:
    """Version and digest that were verified before they ran."""
    known = verified(view.observed.agent)
    if view.rendered is None or view.serving not in view.rendered.agents:
        return known
    wanted = view.rendered.agents[view.serving].spec.model
    if wanted is None:
        return None
    artifact = hot.told(view.observed) if wanted.hot else wanted.artifact
    is_verified = wanted.hot or gate.state == "Synced" or (view.decision and view.decision.state.stable)
    return (artifact.version, artifact.digest) if artifact is not None and is_verified else known


def _phase(view: View, gate: Gate, finding: Finding | None) -> Phase:
    runs = bool(view.observed.deployments)
    if finding is None:
        return "Ready"
    if finding.reason == SUSPENDED:
        return "Suspended"
    if finding.stalled or finding.reason == availability.REASON:
        return "Degraded" if runs else "Pending"
    if not gate.is_open:
        return "SyncingModel"
    return "Progressing" if runs else "Pending"


def _condition(kind: str, told: Told, before: Mapping[str, Any] | None, generation: int, now: dt.datetime) -> Condition:
    status, reason, message = told
    same = before is not None and before["status"] == status
    since = before["lastTransitionTime"] if before is not None and same else now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )


def _ours(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = {one["type"]: one for one in status.get("conditions") or () if one["type"] in OURS}
    return {**status, "conditions": conditions, "rollout": _pruned(status.get("rollout"))}


def _pruned(value: Any) -> Any:
    """A value without empty maps: server-side apply may leave one behind where the last of its keys went."""
    if not isinstance(value, Mapping):
        return value
    pruned = {key: _pruned(below) for key, below in value.items()}
    return {key: below for key, below in pruned.items() if below != {}}
