"""Decide what to write: pure, from what was observed and the time.

First the rollout's decision, then what it makes of each child. Four rules stand above the comparison of manifests with
live objects. Pods never run on an unverified model: until a revision's model Job has succeeded, its Deployment stays as
it is. A canary is given more of the traffic, and a revision loses its pods, only once the routes are as the rollout's
state has them, so that no crash and no refusal between the two skips a weight or an answer. What another owner controls
is never touched. And a child goes only if it carries our labels and names the agent as its controller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from supportfleet_operator.reconcile import channels, checklists, hot, rollouts
from supportfleet_operator.reconcile.channels import Following
from supportfleet_operator.reconcile.desired import Desired, Rendered, stamp, stamped
from supportfleet_operator.reconcile.drift import Difference, differences
from supportfleet_operator.reconcile.observe import Observed, is_leaving, revision_of
from supportfleet_operator.reconcile.policies import child_problem, jobs, traffic
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.resources import Routing, shared_children
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
    following: Following = channels.NOTHING
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
    following = channels.follow(observed, now)
    if not desired.revision:
        return _until_resolved(observed, desired, following, now)
    scene = _scene(observed, desired, _decision(observed, desired, now), now)
    gate = scene.gates.get(desired.revision, Gate("NotNeeded"))
    removals = [*_superseded(scene, gate), *_unwanted(scene), *_looked(following), *_checked(scene)]
    # An autoscaler that goes must go before the Deployment's number is set, or it would set it again.
    return Plan(
        gate,
        scene.decision,
        scene.rendered,
        following,
        before=tuple(removal for removal in removals if removal.ref.kind == AUTOSCALERS.kind),
        writes=(*_routes_first(_writes(scene), observed), *_look(following), *_checklist(scene)),
        after=tuple(removal for removal in removals if removal.ref.kind != AUTOSCALERS.kind),
    )


def model_gate(observed: Observed, rendered: Rendered | None, following: Following, now: dt.datetime) -> Gate:
    """Where the spec's model stands, as people see it."""
    desired = observed.desired
    if desired is None:
        return Gate("NotNeeded")
    if not desired.is_resolved:
        return channels.gate(desired, following)
    if rendered is None:
        return Gate("NotNeeded")
    follows = hot.wanted_artifact(observed) is not None and not desired.agent.spec.suspend
    of_revision = rollouts.gate(observed, rendered, desired.revision, now)
    verified = hot.job_gate(observed, rendered.agents.values(), now) if follows else of_revision
    found = hot.gate(observed, verified, now)
    if following.trouble is None or found.state == "NotNeeded":
        return found
    return replace(found, message=f"{found.message}; {following.trouble[1]}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is wanted beside what there is."""

    observed: Observed
    rendered: Rendered
    gates: Mapping[str, Gate]
    """Where the model of each revision stands."""
    now: dt.datetime


@dataclass(frozen=True, slots=True)
class Scene(Comparison):
    """The same for an agent whose rollout is decided."""

    desired: Desired
    decision: Decision


def _scene(observed: Observed, desired: Desired, decision: Decision, now: dt.datetime) -> Scene:
    rendered = rollouts.render(observed, desired, decision, hot.artifact(observed, decision.scale, now))
    gates = {name: rollouts.gate(observed, rendered, name, now) for name in rendered.revisions}
    return Scene(observed, rendered, gates, now, desired, decision)


def _decision(observed: Observed, desired: Desired, now: dt.datetime) -> Decision:
    """The next move; none that relies on routes which are not yet as the last one has them."""
    decision = rollouts.decision(observed, desired, now)
    if not rollouts.relies_on_routes(rollouts.state_of(observed.agent), decision.state):
        return decision
    standing = rollouts.standing(observed, desired, now)
    return decision if _is_routed(_scene(observed, desired, standing, now)) else standing


def _is_routed(scene: Scene) -> bool:
    """Whether requests go where the decision says, and nobody else holds a part of that."""
    observed = scene.observed
    open_ = [*(write.ref for write in _writes(scene)), *(problem.ref for problem in child_problem.settled(observed))]
    return not any(traffic.is_traffic(ref, observed) for ref in open_)


def _until_resolved(observed: Observed, desired: Desired, following: Following, now: dt.datetime) -> Plan:
    """What a first look at the channel needs to run, and the look: no revision has a name yet."""
    shared = shared_children(desired.agent, Routing())
    rendered = Rendered(shared, {}, {}, {ref_of(manifest): stamped(manifest) for manifest in shared})
    return Plan(
        channels.gate(desired, following),
        following=following,
        writes=(*_writes(Comparison(observed, rendered, {}, now)), *_look(following)),
        after=tuple(_looked(following)),
    )


def _look(following: Following) -> Iterator[Write]:
    if following.job is not None:
        yield Write(ref_of(following.job), following.job, None)


def _looked(following: Following) -> Iterator[Removal]:
    for job in following.obsolete:
        yield Removal(ref_of(job), job["metadata"]["uid"], "superseded")


def _checklist(scene: Scene) -> Iterator[Write]:
    job = checklists.due(scene.observed, scene.desired, scene.decision.state)
    if job is not None:
        yield Write(ref_of(job), job, None)


def _checked(scene: Scene) -> Iterator[Removal]:
    for job, why in checklists.obsolete(scene.observed, scene.desired, scene.decision.state):
        yield Removal(ref_of(job), job["metadata"]["uid"], why)


def _routes_first(writes: Iterable[Write], observed: Observed) -> list[Write]:
    """What moves requests comes before all that can wait, and so before what takes pods from them."""
    return sorted(writes, key=lambda write: write.live is None or not traffic.is_traffic(write.ref, observed))


def _writes(scene: Comparison) -> Iterator[Write]:
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


def _is_held(ref: ObjectRef, manifest: Manifest, live: Manifest | None, scene: Comparison) -> bool:
    """Whether this child has to wait for the model or for the Deployment; what runs as desired may be put right."""
    if ref.kind == AUTOSCALERS.kind:  # a Deployment of that name may be somebody else's, and must not be scaled
        return scene.observed.child_named(DEPLOYMENTS.kind, manifest["spec"]["scaleTargetRef"]["name"]) is None
    if ref.kind != DEPLOYMENTS.kind or (live is not None and stamp(live) == stamp(manifest)):
        return False
    revision, desired = revision_of(manifest), scene.observed.desired
    if live is None and manifest["spec"].get("replicas") == 0 and (desired is None or revision != desired.revision):
        return True  # it would be created only to have no pods, and what is gone may be what could not be created
    model = scene.rendered.agents[revision].spec.model
    if model is not None and model.hot:  # such pods begin with the model that was verified last
        return hot.told(scene.observed) is None
    gate = scene.gates.get(revision)
    return gate is not None and not gate.is_open


def _correction(ref: ObjectRef, manifest: Manifest, live: Manifest, scene: Comparison) -> Write | None:
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
    return max(1, rendered.revisions[revision_of(manifest)].first_replicas_of(manifest["metadata"]["name"]))


def _is_smaller(live: Manifest, manifest: Manifest) -> bool:
    """Claims can only grow, and somebody may have let this one grow further by hand."""

    def size(claim: Manifest) -> Any:
        return quantity(claim["spec"]["resources"]["requests"]["storage"])

    return bool(size(live) < size(manifest))


def _superseded(scene: Scene, gate: Gate) -> Iterator[Removal]:
    """Model Jobs that no revision needs any more, and failed ones whose next try is due.

    A revision that is kept without pods needs its proof, and not a Job that still tries to give one.
    """
    if scene.desired.agent.spec.suspend:
        return
    failed = {
        job["metadata"]["name"]: found.reason
        for name, one in scene.rendered.revisions.items()
        if (job := one.model_job) and (found := scene.gates[name]).is_due
    }
    needed = {job["metadata"]["name"] for one in scene.rendered.revisions.values() if (job := one.model_job)}
    for job in scene.observed.jobs:
        ref = ref_of(job)
        if is_leaving(job) or channels.is_look(job) or checklists.is_checklist(job):
            continue
        if ref.name in failed:
            yield Removal(ref, job["metadata"]["uid"], f"to try again after {failed[ref.name]}")
        elif jobs.is_finished(job):
            if gate.is_open and ref.name not in scene.rendered.model_jobs:
                yield Removal(ref, job["metadata"]["uid"], "superseded")
        elif ref.name not in needed:
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
