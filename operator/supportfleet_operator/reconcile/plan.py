"""Decide what to write: pure, from what was observed and the time.

Three rules stand above the comparison of manifests with live objects. Pods never run on an unverified model: until the
model Job has succeeded, the Deployment and the configuration it mounts stay as they are. What another owner controls is
never touched. And a child goes only if it carries our labels and names the agent as its controller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from supportfleet_operator.api.types import quantity
from supportfleet_operator.cluster import ownership
from supportfleet_operator.cluster.client import FIELD_MANAGER
from supportfleet_operator.cluster.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    VOLUME_CLAIMS,
    Manifest,
    ObjectRef,
)
from supportfleet_operator.reconcile.desired import Desired, stamp
from supportfleet_operator.reconcile.drift import Difference, differences
from supportfleet_operator.reconcile.observe import Observed, is_leaving
from supportfleet_operator.reconcile.policies import model_sync
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.reconcile.policies.rollout import is_complete

GATED: Final = frozenset({DEPLOYMENTS.kind, CONFIG_MAPS.kind})
"""What pods run on: it changes only once the model is verified."""


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
    """What to do, in order: removals that must come first, writes, the other removals."""

    gate: Gate
    before: tuple[Removal, ...] = ()
    writes: tuple[Write, ...] = ()
    after: tuple[Removal, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the cluster is as it should be."""
        return not (self.before or self.writes or self.after)


def plan(observed: Observed, now: dt.datetime) -> Plan:
    """What brings the cluster to the spec; nothing for a spec that is not valid."""
    if observed.desired is None:
        return Plan(Gate("NotNeeded"))
    gate = model_sync.gate(observed, now)
    removals = [*_superseded(observed, observed.desired, gate), *_unwanted(observed, observed.desired)]
    # An autoscaler that goes must go before the Deployment's number is set, or it would set it again.
    return Plan(
        gate,
        before=tuple(removal for removal in removals if removal.ref.kind == AUTOSCALERS.kind),
        writes=tuple(_writes(observed, observed.desired, gate, now)),
        after=tuple(removal for removal in removals if removal.ref.kind != AUTOSCALERS.kind),
    )


def _writes(observed: Observed, desired: Desired, gate: Gate, now: dt.datetime) -> Iterator[Write]:
    for ref, manifest in desired.manifests.items():
        live = observed.children.get(ref)
        if live is not None and is_leaving(live):
            continue  # it comes back when it is gone
        if _is_held(ref, manifest, live, observed, gate):
            continue
        if live is None:
            yield Write(ref, manifest, None, replicas=_first_replicas(ref, manifest, desired))
        elif write := _correction(ref, manifest, live, observed, now):
            yield write


def _is_held(ref: ObjectRef, manifest: Manifest, live: Manifest | None, observed: Observed, gate: Gate) -> bool:
    """Whether this child has to wait for the model or for the Deployment; what runs as desired may be put right."""
    if ref.kind == AUTOSCALERS.kind:
        return observed.deployment is None  # one of that name may be somebody else's, and must not be scaled
    if gate.is_open:
        return False
    return ref.kind in GATED and (live is None or stamp(live) != stamp(manifest))


def _correction(
    ref: ObjectRef, manifest: Manifest, live: Manifest, observed: Observed, now: dt.datetime
) -> Write | None:
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
        replicas = _handed_over(live, observed)
    settlement = observed.settlements.get(live["metadata"]["uid"])
    settled = settlement is not None and settlement.covers(stamp(manifest), differs, now)
    if not tools and replicas is None and (not differs or settled):
        return None
    return Write(ref, manifest, live, tuple(differs), tuple(tools), replicas)


def _first_replicas(ref: ObjectRef, manifest: Manifest, desired: Desired) -> int | None:
    if ref.kind != DEPLOYMENTS.kind or "replicas" in manifest["spec"]:
        return None
    return desired.children.first_replicas


def _handed_over(live: Manifest, observed: Observed) -> int:
    """Pods to leave to the autoscaler: those there are, and enough for it to start from (it ignores 0)."""
    assert observed.desired is not None  # noqa: S101 - a correction has a manifest
    scaling = observed.desired.agent.spec.autoscaling
    return max(int(live["spec"].get("replicas", 1)), int(scaling.min_replicas) if scaling else 1)


def _is_smaller(live: Manifest, manifest: Manifest) -> bool:
    """Claims can only grow, and somebody may have let this one grow further by hand."""

    def size(claim: Manifest) -> Any:
        return quantity(claim["spec"]["resources"]["requests"]["storage"])

    return bool(size(live) < size(manifest))


def _superseded(observed: Observed, desired: Desired, gate: Gate) -> Iterator[Removal]:
    """Model Jobs that are no longer needed, and failed ones whose next try is due."""
    if desired.agent.spec.suspend:
        return
    wanted = desired.children.model_job
    for job in observed.jobs:
        ref = ObjectRef(JOBS.kind, job["metadata"]["namespace"], job["metadata"]["name"])
        if is_leaving(job):
            continue
        if wanted is not None and ref.name == wanted["metadata"]["name"]:
            if gate.state == "Failed" and gate.retry_in is not None and gate.retry_in <= 0:
                yield Removal(ref, job["metadata"]["uid"], f"to try again after {gate.reason}")
        elif gate.is_open or not model_sync.is_finished(job):
            yield Removal(ref, job["metadata"]["uid"], "superseded")


def _unwanted(observed: Observed, desired: Desired) -> Iterator[Removal]:
    """Children that the spec no longer asks for."""
    for ref, child in observed.children.items():
        if ref in desired.manifests or ref.kind == JOBS.kind or is_leaving(child):
            continue
        if ref.kind == VOLUME_CLAIMS.kind and not _is_unused(observed, desired):
            continue
        yield Removal(ref, child["metadata"]["uid"], "no longer wanted")


def _is_unused(observed: Observed, desired: Desired) -> bool:
    """Whether no pod can still need the claim: the Deployment is as desired, and all its pods are."""
    deployment = observed.deployment
    return deployment is None or (
        stamp(deployment) == stamp(desired.manifests[_ref(desired.children.deployment)]) and is_complete(deployment)
    )


def _ref(manifest: Manifest) -> ObjectRef:
    metadata = manifest["metadata"]
    return ObjectRef(manifest["kind"], metadata["namespace"], metadata["name"])
