"""What an agent should become: its spec, read once for each generation, and what a rollout decision makes of it.

Where the spec follows a channel, what that points at is part of it, as the status remembers it. Which revisions have
how many pods, and which get requests, is the decision's; rendering follows it. The same decision gives the same
manifests, so the newest rendering is kept until one differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from supportfleet_operator.api import GROUP, Artifact, InvalidSupportAgentError, LayerName, SupportAgent, parse
from supportfleet_operator.cluster.resources import Manifest, ObjectRef, ref_of
from supportfleet_operator.resources import (
    RevisionChildren,
    Routing,
    SharedChildren,
    at_revision,
    controller_revision,
    resolved,
    revision_children,
    revision_name,
    shared_children,
)
from supportfleet_operator.rollout import Scale

APPLIED_HASH: Final = f"{GROUP}/applied-hash"
"""Annotation of every child: the hash of the manifest that was applied. It tells a removed field from a foreign one."""
HASH_LENGTH: Final = 16

LayerSizes = Mapping[str, Mapping[LayerName, int]]
"""Pods of each layer, by revision; those without layers aren't there."""


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
    """With what its channel points at, where it follows one."""
    revision: str
    """Empty while nobody knows where the channel points."""
    source: SupportAgent
    """As its spec says."""
    is_resolved: bool = True
    """Whether it is known which model the spec means."""
    _newest: dict[Any, Rendered] = field(default_factory=dict, compare=False, repr=False)

    def held(self, stable: str | None, snapshots: Mapping[str, Snapshot]) -> Desired:
        """The same; but while it is not known which model is wanted, what serves goes on as it is."""
        if self.revision or stable is None or stable not in snapshots:
            return self
        agent = self.as_of(stable, snapshots)
        return self if agent is None else replace(self, agent=agent, revision=stable)

    def as_of(self, revision: str, snapshots: Mapping[str, Snapshot]) -> SupportAgent | None:
        """The agent as of a revision; None where its snapshot is lost, or has fields that this operator cannot read."""
        if revision == self.revision != "":
            return self.agent
        if revision not in snapshots:
            return None
        try:
            return at_revision(self.agent, snapshots[revision].data)
        except InvalidSupportAgentError:
            return None

    def render(
        self,
        snapshots: Mapping[str, Snapshot],
        routing: Routing,
        scale: Mapping[str, Scale],
        told: Artifact | None = None,
        layers: LayerSizes | None = None,
    ) -> Rendered:
        """Render what the revisions share, and each revision that has a scale.

        ``told`` is the artifact that pods with a hot model are to load now.
        """
        sizes = layers or {}
        number = _number(self.revision, snapshots)
        known = tuple(revision for revision in scale if revision in snapshots)
        routes = (routing.service, routing.matched, routing.mirror, routing.sticky, *sorted(routing.weights.items()))
        pods = sorted((name, one.min_replicas, one.autoscaled) for name, one in scale.items())
        behind = sorted((name, *sorted(one.items())) for name, one in sizes.items())
        key = (number, known, told, routes, *pods, *behind)
        if key not in self._newest:
            rendered = _render(self, snapshots, routing, scale, told=told, layers=sizes)
            self._newest.clear()
            self._newest[key] = rendered
        return self._newest[key]


def read(agent: Mapping[str, Any]) -> Desired:
    """Read an agent as the API server holds it; raises InvalidSupportAgentError."""
    source = parse(agent)
    model = source.spec.model
    if model is None or model.channel is None:
        return Desired(source, revision_name(source), source)
    pointed = resolution(agent) or verified(agent)
    if pointed is None:
        return Desired(source, "", source, is_resolved=False)
    named = resolved(source, *pointed)
    return Desired(named, revision_name(named), source)


def resolution(agent: Mapping[str, Any]) -> tuple[str, str] | None:
    """Version and digest that the agent's channel pointed at when it last answered."""
    return _model_of(agent, "channelVersion", "channelDigest")


def verified(agent: Mapping[str, Any]) -> tuple[str, str] | None:
    """Version and digest of the model that serves, as the status remembers it."""
    return _model_of(agent, "version", "digest")


def _model_of(agent: Mapping[str, Any], version: str, digest: str) -> tuple[str, str] | None:
    model = (agent.get("status") or {}).get("model") or {}
    return (model[version], model[digest]) if model.get(version) and model.get(digest) else None


def hash_of(manifest: Mapping[str, Any]) -> str:
    """The hash that is stamped on a manifest."""
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()[:HASH_LENGTH]


def stamp(manifest: Mapping[str, Any]) -> str:
    """The hash that a manifest or a live object carries; empty without one."""
    return str((manifest["metadata"].get("annotations") or {}).get(APPLIED_HASH, ""))


def _render(
    desired: Desired,
    snapshots: Mapping[str, Snapshot],
    routing: Routing,
    scale: Mapping[str, Scale],
    *,
    told: Artifact | None,
    layers: LayerSizes,
) -> Rendered:
    agents = {name: found for name in scale if (found := desired.as_of(name, snapshots)) is not None}
    hot = any(agent.spec.model is not None and agent.spec.model.hot for agent in agents.values())
    layered = any(agent.spec.is_layered for name, agent in agents.items() if scale[name].min_replicas)
    shared = shared_children(desired.agent, routing, told if hot else None, layered=layered)
    revisions = {
        name: revision_children(
            agent,
            name,
            replicas=scale[name].min_replicas,
            autoscaled=scale[name].autoscaled,
            layers=layers.get(name),
        )
        for name, agent in agents.items()
    }
    wanted = [_history(desired, snapshots)] if desired.revision in scale else []
    wanted += [*shared, *(manifest for one in revisions.values() for manifest in one)]
    manifests = {ref_of(manifest): stamped(manifest) for manifest in wanted}
    return Rendered(shared, revisions, agents, manifests)


def _history(desired: Desired, snapshots: Mapping[str, Snapshot]) -> Manifest:
    """The ControllerRevision of the spec as it is. What it holds cannot be changed once it is there."""
    manifest = controller_revision(desired.agent, _number(desired.revision, snapshots))
    known = snapshots.get(desired.revision)
    return manifest if known is None else manifest | {"data": known.data}


def _number(revision: str, snapshots: Mapping[str, Snapshot]) -> int:
    """The spec's own revision is always the newest."""
    newest = max((one.number for one in snapshots.values()), default=0)
    known = snapshots.get(revision)
    return newest if known is not None and known.number == newest else newest + 1


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with its own hash."""
    metadata = manifest["metadata"]
    annotations = (metadata.get("annotations") or {}) | {APPLIED_HASH: hash_of(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}
