"""Everything about one agent, gathered once into one frozen value; what is absent is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from supportfleet_operator.api import LAYERED, LAYERS, LayerName, Problem, SupportAgent
from supportfleet_operator.cluster.cache import is_owned_by
from supportfleet_operator.cluster.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    VOLUME_CLAIMS,
    Manifest,
    ObjectRef,
    ref_of,
)
from supportfleet_operator.reconcile.desired import Desired, Snapshot
from supportfleet_operator.reconcile.probes import Figures
from supportfleet_operator.reconcile.references import Missing
from supportfleet_operator.reconcile.settlements import Settlement
from supportfleet_operator.resources import COMPONENT, REVISION
from supportfleet_operator.rollout import Answer, Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One agent and what the cluster holds of it."""

    agent: Mapping[str, Any]
    """As the API server has it."""
    desired: Desired | None
    """None for a spec that is not valid; ``problems`` says why."""
    problems: tuple[Problem, ...] = ()
    children: Mapping[ObjectRef, Manifest]
    """What the agent controls."""
    strangers: Mapping[ObjectRef, Manifest]
    """What carries the agent's labels but is controlled by something else, such as an agent of the same name before."""
    pods: tuple[Manifest, ...]
    missing: tuple[Missing, ...] = ()
    """What the spec refers to and the cluster does not have."""
    settlements: Mapping[str, Settlement]
    """By uid of a child: what its last write came to."""
    served: frozenset[str] = frozenset()
    """Optional kinds that the cluster has."""
    figures: Figures | None = None
    """What the pods' metrics say to the rollout's analysis, by revision and pod; None where nobody asked them."""
    answers: Mapping[Query, Answer] = field(default_factory=dict)
    """What Prometheus says to it."""
    loading: Figures | None = None
    """What the pods' metrics say while a model is reloaded; None where nobody asked them."""

    @property
    def uid(self) -> str:
        """The agent's uid, which its children's owner references carry."""
        return str(self.agent["metadata"]["uid"])

    def as_of(self, revision: str) -> SupportAgent | None:
        """The agent as of a revision; None where that cannot be known."""
        return self.desired.as_of(revision, self.snapshots) if self.desired else None

    def child(self, manifest: Manifest | None) -> Manifest | None:
        """The live object of a desired manifest."""
        return self.children.get(ref_of(manifest)) if manifest else None

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """The revisions that are kept, oldest first."""
        return snapshots_in(self.children)

    @property
    def deployments(self) -> dict[str, Manifest]:
        """Deployments that customers reach, by revision; one of an operator that knew none is under the empty name."""
        return {
            revision_of(child): child
            for ref, child in self.children.items()
            if ref.kind == DEPLOYMENTS.kind and layer_of(child) is None
        }

    @property
    def layers(self) -> dict[tuple[str, LayerName], Manifest]:
        """Deployments of layers, by revision and layer."""
        return {
            (revision_of(child), layer): child
            for ref, child in self.children.items()
            if ref.kind == DEPLOYMENTS.kind and (layer := layer_of(child)) is not None
        }

    def layer(self, revision: str, name: LayerName) -> Manifest | None:
        """The Deployment of a revision's layer."""
        return self.layers.get((revision, name))

    def is_layered(self, revision: str) -> bool:
        """Whether a revision's work is divided among layers."""
        if self.desired is not None and revision == self.desired.revision:
            return self.desired.agent.spec.is_layered
        known = self.snapshots.get(revision)
        return known is not None and (known.data.get("spec") or {}).get("topology") == LAYERED

    def layers_of(self, revision: str) -> tuple[LayerName, ...]:
        """The layers that a revision should have."""
        agent = self.as_of(revision) if self.is_layered(revision) else None
        return tuple(agent.spec.layers) if agent is not None else ()

    def parts(self, revision: str) -> dict[LayerName | None, Manifest | None]:
        """A revision's Deployments: that which customers reach, then those of its layers; None for one to come."""
        found: dict[LayerName | None, Manifest | None] = {None: self.deployments.get(revision)}
        return found | {name: self.layer(revision, name) for name in self.layers_of(revision)}

    def of_revision(self, kind: str, revision: str) -> Manifest | None:
        """A revision's child of a kind that it has one of, beside those of its layers."""
        return next(
            (
                one
                for ref, one in self.children.items()
                if ref.kind == kind and revision_of(one) == revision and layer_of(one) is None
            ),
            None,
        )

    def child_named(self, kind: str, name: str) -> Manifest | None:
        """The live object of a kind and name."""
        return self.children.get(ObjectRef(kind, str(self.agent["metadata"]["namespace"]), name))

    def ready_pods(self, revision: str) -> int:
        """Pods of a revision by which customers are answered now: none while a layer behind them has none."""
        found = sum(1 for pod in self.agent_pods if revision_of(pod) == revision and is_ready(pod))
        return found if found == 0 or not self.lacking(revision) else 0

    def lacking(self, revision: str) -> tuple[LayerName, ...]:
        """The layers of a revision that have no ready pod."""
        wanted = self.layers_of(revision)
        if not wanted:
            return ()
        ready = {layer_of(pod) for pod in self.working_pods if revision_of(pod) == revision and is_ready(pod)}
        return tuple(name for name in wanted if name not in ready)

    @property
    def claim(self) -> Manifest | None:
        """The claim for models that the agent owns."""
        return self._of(VOLUME_CLAIMS.kind)

    @property
    def jobs(self) -> list[Manifest]:
        """The agent's model Jobs."""
        return [child for ref, child in self.children.items() if ref.kind == JOBS.kind]

    @property
    def agent_pods(self) -> list[Manifest]:
        """Pods that customers reach, without those on their way out."""
        return [pod for pod in self.pods if _component(pod) == "agent" and not is_leaving(pod)]

    @property
    def working_pods(self) -> list[Manifest]:
        """The same, and those of the layers behind them."""
        return [pod for pod in self.pods if _component(pod) in {"agent", *LAYERS} and not is_leaving(pod)]

    def pods_of(self, job: Manifest) -> list[Manifest]:
        """Pods of one Job."""
        return [pod for pod in self.pods if is_owned_by(pod, job["metadata"]["uid"])]

    def _of(self, kind: str) -> Manifest | None:
        return next((child for ref, child in self.children.items() if ref.kind == kind), None)


def snapshots_in(children: Mapping[ObjectRef, Manifest]) -> dict[str, Snapshot]:
    """The revisions that ControllerRevisions keep, oldest first."""
    kept = {
        revision_of(child): Snapshot(int(child.get("revision", 0)), child.get("data") or {})
        for ref, child in children.items()
        if ref.kind == CONTROLLER_REVISIONS.kind
    }
    return dict(sorted(kept.items(), key=lambda one: one[1].number))


def revision_of(manifest: Mapping[str, Any]) -> str:
    """The revision that an object belongs to; empty for what all share, and for what is older than revisions."""
    return str((manifest["metadata"].get("labels") or {}).get(REVISION, ""))


def layer_of(manifest: Mapping[str, Any]) -> LayerName | None:
    """The layer that an object belongs to; None for what is of no layer, or of the pods that customers reach."""
    component = _component(manifest)
    return next((name for name in LAYERS if name == component), None)


def desired_replicas(autoscaler: Mapping[str, Any] | None) -> int:
    """What a HorizontalPodAutoscaler came to; 0 where there is none, or it has not come to anything."""
    return int(((autoscaler or {}).get("status") or {}).get("desiredReplicas", 0))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready for requests."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def observe(
    agent: Mapping[str, Any],
    found: Sequence[Manifest],
    *,
    desired: Desired | None,
    problems: tuple[Problem, ...] = (),
    missing: tuple[Missing, ...] = (),
    settlements: Mapping[str, Settlement],
    served: frozenset[str] = frozenset(),
    figures: Figures | None = None,
    answers: Mapping[Query, Answer] | None = None,
    loading: Figures | None = None,
) -> Observed:
    """Sort what the cache has of an agent."""
    uid = agent["metadata"]["uid"]
    children: dict[ObjectRef, Manifest] = {}
    strangers: dict[ObjectRef, Manifest] = {}
    pods = []
    for manifest in found:
        if manifest["kind"] == PODS.kind:
            pods.append(manifest)
        else:
            (children if is_owned_by(manifest, uid) else strangers)[ref_of(manifest)] = manifest
    stable = ((agent.get("status") or {}).get("rollout") or {}).get("stableRevision")
    return Observed(
        agent=agent,
        desired=desired.held(stable, snapshots_in(children)) if desired else None,
        problems=problems,
        children=children,
        strangers=strangers,
        pods=tuple(pods),
        missing=missing,
        settlements=settlements,
        served=served,
        figures=figures,
        answers=answers or {},
        loading=loading,
    )


def is_leaving(manifest: Mapping[str, Any]) -> bool:
    """Whether an object is being deleted."""
    return bool(manifest["metadata"].get("deletionTimestamp"))


def _component(manifest: Mapping[str, Any]) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(COMPONENT, ""))
