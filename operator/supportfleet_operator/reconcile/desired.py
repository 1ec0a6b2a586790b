"""What an agent should become: its spec, read once for each generation, and what a rollout decision makes of it.

Which revisions have how many pods, and which get requests, is the decision's; rendering follows it. The same decision
gives the same manifests, so the newest rendering is kept until one differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from supportfleet_operator.api import GROUP, InvalidSupportAgentError, SupportAgent, parse
from supportfleet_operator.cluster.resources import Manifest, ObjectRef, ref_of
from supportfleet_operator.resources import (
    RevisionChildren,
    Routing,
    SharedChildren,
    at_revision,
    controller_revision,
    revision_children,
    revision_name,
    shared_children,
)
from supportfleet_operator.rollout import Scale

APPLIED_HASH: Final = f"{GROUP}/applied-hash"
"""Annotation of every child: the hash of the manifest that was applied. It tells a removed field from a foreign one."""
HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A revision as its ControllerRevision keeps it."""

    number: int
    """Revisions count up: the newest has the highest."""
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """An agent's children, as a decision has them."""

    shared: SharedChildren
    revisions: Mapping[str, RevisionChildren]
    """The revisions that can be rendered: all but those whose snapshot is lost."""
    agents: Mapping[str, SupportAgent]
    """The agent as of each of them."""
    manifests: Mapping[ObjectRef, Manifest]
    """In the order in which they are applied, each with its hash."""

    @property
    def model_jobs(self) -> frozenset[str]:
        """Names of the Jobs that prove the revisions' models."""
        return frozenset(name for one in self.revisions.values() if (name := one.model_job_name))


@dataclass(frozen=True, slots=True)
class Desired:
    """A valid agent, and the revision that its spec describes."""

    agent: SupportAgent
    revision: str
    _newest: dict[Any, Rendered] = field(default_factory=dict, compare=False, repr=False)

    def as_of(self, revision: str, snapshots: Mapping[str, Snapshot]) -> SupportAgent | None:
        """The agent as of a revision; None where its snapshot is lost, or has fields that this operator cannot read."""
        if revision == self.revision:
            return self.agent
        if revision not in snapshots:
            return None
        try:
            return at_revision(self.agent, snapshots[revision].data)
        except InvalidSupportAgentError:
            return None

    def render(self, snapshots: Mapping[str, Snapshot], routing: Routing, scale: Mapping[str, Scale]) -> Rendered:
        """Render what the revisions share, and each revision that has a scale."""
        number = _number(self.revision, snapshots)
        known = tuple(revision for revision in scale if revision in snapshots)
        decision = (number, known, routing.service, routing.matched, *sorted(routing.weights.items()))
        key = (*decision, *sorted((name, one.min_replicas, one.autoscaled) for name, one in scale.items()))
        if key not in self._newest:
            rendered = _render(self, snapshots, routing, scale, number)
            self._newest.clear()
            self._newest[key] = rendered
        return self._newest[key]


def read(agent: Mapping[str, Any]) -> Desired:
    """Read an agent as the API server holds it; raises InvalidSupportAgentError."""
    parsed = parse(agent)
    return Desired(parsed, revision_name(parsed))


def hash_of(manifest: Mapping[str, Any]) -> str:
    """The hash that is stamped on a manifest."""
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()[:HASH_LENGTH]


def stamp(manifest: Mapping[str, Any]) -> str:
    """The hash that a manifest or a live object carries; empty without one."""
    return str((manifest["metadata"].get("annotations") or {}).get(APPLIED_HASH, ""))


def _render(
    desired: Desired, snapshots: Mapping[str, Snapshot], routing: Routing, scale: Mapping[str, Scale], number: int
) -> Rendered:
    shared = shared_children(desired.agent, routing)
    agents = {name: found for name in scale if (found := desired.as_of(name, snapshots)) is not None}
    revisions = {
        name: revision_children(agent, name, replicas=scale[name].min_replicas, autoscaled=scale[name].autoscaled)
        for name, agent in agents.items()
    }
    wanted = [_history(desired, snapshots, number)] if desired.revision in scale else []
    wanted += [*shared, *(manifest for one in revisions.values() for manifest in one)]
    manifests = {ref_of(manifest): _stamped(manifest) for manifest in wanted}
    return Rendered(shared, revisions, agents, manifests)


def _history(desired: Desired, snapshots: Mapping[str, Snapshot], number: int) -> Manifest:
    """The ControllerRevision of the spec as it is. What it holds cannot be changed once it is there."""
    manifest = controller_revision(desired.agent, number)
    known = snapshots.get(desired.revision)
    return manifest if known is None else manifest | {"data": known.data}


def _number(revision: str, snapshots: Mapping[str, Snapshot]) -> int:
    """The spec's own revision is always the newest."""
    newest = max((one.number for one in snapshots.values()), default=0)
    known = snapshots.get(revision)
    return newest if known is not None and known.number == newest else newest + 1


def _stamped(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    annotations = (metadata.get("annotations") or {}) | {APPLIED_HASH: hash_of(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}
