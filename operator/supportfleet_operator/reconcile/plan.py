"""Decide what to write: pure, from what was observed and the time.

First the rollout's decision, then what it makes of each child. Three rules stand above the comparison of manifests with
live objects. Pods never run on an unverified model: until a revision's model Job has succeeded, its Deployment stays as
it is. What another owner controls is never touched. And a child goes only if it carries our labels and names the agent
as its controller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supportfleet_operator.api.types import quantity
from supportfleet_operator.cluster import ownership
from supportfleet_operator.cluster.client import FIELD_MANAGER
from supportfleet_operator.cluster.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    JOBS,
    OPTIONAL,
    VOLUME_CLAIMS,
    Manifest,
    ObjectRef,
    ref_of,
)
from supportfleet_operator.reconcile import rollouts
from supportfleet_operator.reconcile.desired import Desired, Rendered, stamp
from supportfleet_operator.reconcile.drift import Difference, differences
from supportfleet_operator.reconcile.observe import Observed, is_leaving, revision_of
from supportfleet_operator.reconcile.policies import model_sync
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.resources.model_pvc import model_claim
from supportfleet_operator.rollout import Decision

OPTIONAL_KINDS: Final = frozenset(resource.kind for resource in OPTIONAL)
FORMERLY_SHARED: Final = frozenset({DEPLOYMENTS.kind, AUTOSCALERS.kind, CONFIG_MAPS.kind})
"""Children of which there was one for each agent before there were revisions."""


@dataclass(frozen=True, slots=True)
class Write:
    """A child to create or to put right."""

    ref: ObjectRef
    manifest: Manifest
    live: Manifest | None
    differs: tuple[Difference, ...] = ()
    tools: tuple[str, ...] = ()
    """Tools by which people changed it."""
    replicas: int | None = None
    """Of a Deployment whose number is not ours to keep: the one to create it with, or to hand over."""


@dataclass(frozen=True, slots=True)
class Removal:
    """A child to delete."""

    ref: ObjectRef
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order: keep the rollout's state, removals that must come first, writes, the other removals."""

    gate: Gate
    decision: Decision | None = None
    """None for a spec that is not valid."""
    rendered: Rendered | None = None
    before: tuple[Removal, ...] = ()
    writes: tuple[Write, ...] = ()
    after: tuple[Removal, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the cluster is as it should be."""
        return not (self.before or self.writes or self.after)

    def moves(self, observed: Observed) -> bool:
        """Whether the rollout's state changes, which is written before anything is done about it."""
        return self.decision is not None and self.decision.state != rollouts.state_of(observed.agent)


def plan(observed: Observed, now: dt.datetime) -> Plan:
    """What brings the cluster to the spec; nothing for a spec that is not valid."""
    desired = observed.desired
    if desired is None:
        return Plan(Gate("NotNeeded"))
    decision = rollouts.decision(observed, desired, now)
    rendered = rollouts.render(observed, desired, decision)
    gates = {name: rollouts.gate(observed, rendered, name, now) for name in rendered.revisions}
    gate = gates.get(desired.revision, Gate("NotNeeded"))
    scene = Scene(observed, desired, decision, rendered, gates, now)
    removals = [*_superseded(scene, gate), *_unwanted(scene)]
    # An autoscaler that goes must go before the Deployment's number is set, or it would set it again.
    return Plan(
        gate,
        decision,
        rendered,
        before=tuple(removal for removal in removals if removal.ref.kind == AUTOSCALERS.kind),
        writes=tuple(_writes(scene)),
        after=tuple(removal for removal in removals if removal.ref.kind != AUTOSCALERS.kind),
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """All that the comparison below looks at."""

    observed: Observed
    desired: Desired
    decision: Decision
    rendered: Rendered
    gates: Mapping[str, Gate]
    """Where the model of each revision stands."""
    now: dt.datetime


def _writes(scene: Scene) -> Iterator[Write]:
    for ref, manifest in scene.rendered.manifests.items():
        live = scene.observed.children.get(ref)
        if live is not None and is_leaving(live):
            continue  # it comes back when it is gone
        if ref.kind in OPTIONAL_KINDS - scene.observed.served or _is_held(ref, manifest, live, scene):
            continue
        if live is None:
            yield Write(ref, manifest, None, replicas=_first_replicas(manifest, scene.rendered))
        elif write := _correction(ref, manifest, live, scene):
            yield write


def _is_held(ref: ObjectRef, manifest: Manifest, live: Manifest | None, scene: Scene) -> bool:
    """Whether this child has to wait for the model or for the Deployment; what runs as desired may be put right."""
    if ref.kind == AUTOSCALERS.kind:  # a Deployment of that name may be somebody else's, and must not be scaled
        return revision_of(manifest) not in scene.observed.deployments
    gate = scene.gates.get(revision_of(manifest))
    if gate is None or gate.is_open:
        return False
    return ref.kind == DEPLOYMENTS.kind and (live is None or stamp(live) != stamp(manifest))


def _correction(ref: ObjectRef, manifest: Manifest, live: Manifest, scene: Scene) -> Write | None:
    """What to put right in a child that exists."""
    if ref.kind == JOBS.kind:
        return None  # its name is the hash of its spec: it is right, or it is another Job
    if ref.kind == VOLUME_CLAIMS.kind:
        return Write(ref, manifest, live) if _is_smaller(live, manifest) else None
    differs = differences(manifest, live)
    fields = live["metadata"].get("managedFields") or ()
    scaled_by_us = ref.kind != DEPLOYMENTS.kind or "replicas" in manifest["spec"]
    tools = ownership.hand_edits(fields, replicas_are_ours=scaled_by_us)
    replicas = None
    if not scaled_by_us and ownership.holds_replicas(fields, FIELD_MANAGER):
        replicas = max(int(live["spec"].get("replicas", 1)), _first_replicas(manifest, scene.rendered) or 1)
    settlement = scene.observed.settlements.get(live["metadata"]["uid"])
    settled = settlement is not None and settlement.covers(stamp(manifest), differs, scene.now)
    if not tools and replicas is None and (not differs or settled):
        return None
    return Write(ref, manifest, live, tuple(differs), tuple(tools), replicas)


def _first_replicas(manifest: Manifest, rendered: Rendered) -> int | None:
    """Pods to begin with, for a Deployment whose number an autoscaler keeps; it ignores 0."""
    if manifest["kind"] != DEPLOYMENTS.kind or "replicas" in manifest["spec"]:
        return None
    return max(1, rendered.revisions[revision_of(manifest)].first_replicas)


def _is_smaller(live: Manifest, manifest: Manifest) -> bool:
    """Claims can only grow, and somebody may have let this one grow further by hand."""

    def size(claim: Manifest) -> Any:
        return quantity(claim["spec"]["resources"]["requests"]["storage"])

    return bool(size(live) < size(manifest))


def _superseded(scene: Scene, gate: Gate) -> Iterator[Removal]:
    """Model Jobs that no revision needs any more, and failed ones whose next try is due."""
    if scene.desired.agent.spec.suspend:
        return
    failed = {
        job["metadata"]["name"]: found.reason
        for name, one in scene.rendered.revisions.items()
        if (job := one.model_job) and (found := scene.gates[name]).is_due
    }
    for job in scene.observed.jobs:
        ref = ref_of(job)
        if is_leaving(job):
            continue
        if ref.name in failed:
            yield Removal(ref, job["metadata"]["uid"], f"to try again after {failed[ref.name]}")
        elif ref.name not in scene.rendered.model_jobs and (gate.is_open or not model_sync.is_finished(job)):
            yield Removal(ref, job["metadata"]["uid"], "superseded")


def _unwanted(scene: Scene) -> Iterator[Removal]:
    """Children that neither the spec nor a revision that is kept asks for."""
    for ref, child in scene.observed.children.items():
        if ref in scene.rendered.manifests or ref.kind == JOBS.kind or is_leaving(child):
            continue
        if _is_kept(ref, child, scene):
            continue
        why = "superseded" if revision_of(child) else "no longer wanted"
        yield Removal(ref, child["metadata"]["uid"], why)


def _is_kept(ref: ObjectRef, child: Manifest, scene: Scene) -> bool:
    """Whether something may still need a child that is not rendered."""
    revision = revision_of(child)
    if ref.kind == VOLUME_CLAIMS.kind:
        return _may_need_claim(scene) or not _serves_by_revision(scene)
    if revision in scene.decision.keep:
        # What was rendered is all that the revision has; what cannot be rendered stays as it is.
        return ref.kind == CONTROLLER_REVISIONS.kind or revision not in scene.rendered.revisions
    if not revision and ref.kind in FORMERLY_SHARED:
        return not (_serves_by_revision(scene) or scene.desired.agent.spec.suspend)
    return False


def _serves_by_revision(scene: Scene) -> bool:
    """Whether requests reach the pods of a revision, so that those of an operator that knew none may go."""
    service = scene.rendered.shared.service
    live, stable = scene.observed.child(service), scene.decision.state.stable
    return live is not None and stable is not None and live["spec"].get("selector") == service["spec"]["selector"]


def _may_need_claim(scene: Scene) -> bool:
    """Whether a revision that may come back, or that cannot be rendered, keeps its models on the agent's claim."""
    rendered = scene.rendered
    readable = all(name in rendered.agents for name in scene.decision.keep)
    return not readable or any(model_claim(agent) is not None for agent in rendered.agents.values())
