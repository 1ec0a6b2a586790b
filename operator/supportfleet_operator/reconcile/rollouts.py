"""Between what is observed and the pure rollout decision: what it is asked, and what its answer means for children.

The decision knows revisions, weights and numbers of pods. Here they are read off Deployments and pods, and turned into
what the agent's Service selects and what its routes say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.api import MODEL_SYNCED, ROUTED, Artifact, Rollout, RolloutStatus
from supportfleet_operator.cluster.resources import AUTOSCALERS, Manifest
from supportfleet_operator.reconcile import checklists, layers
from supportfleet_operator.reconcile.desired import Desired, Rendered, Snapshot
from supportfleet_operator.reconcile.observe import Observed, desired_replicas, revision_of
from supportfleet_operator.reconcile.policies import model_sync, pods, traffic
from supportfleet_operator.reconcile.policies.base import condition
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.resources import NOBODY, Routing
from supportfleet_operator.rollout import (
    AnalysisResult,
    Decision,
    Inputs,
    RevisionView,
    RolloutState,
    action_of,
    analyse,
    decide,
    stand,
)

UNREVISED: Final = ""
"""Stands for the Deployment of an operator that knew no revisions."""
WEIGHTED: Final = frozenset({"Canary", "ABTest"})
"""Strategies that make no sense where nothing splits requests as they say."""
TROUBLE: Final = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
)
"""Why containers wait, where it is not progress."""


def state_of(agent: Mapping[str, Any]) -> RolloutState:
    """The state that the last decision left."""
    told = (agent.get("status") or {}).get("rollout")
    return RolloutState.from_status(RolloutStatus.model_validate(told) if told else None)


def decision(observed: Observed, desired: Desired, now: dt.datetime) -> Decision:
    """What the rollout does next."""
    state = state_of(observed.agent)
    return decide(state, inputs(observed, desired, state, now))


def standing(observed: Observed, desired: Desired, now: dt.datetime) -> Decision:
    """What the rollout has done so far, with no next move."""
    state = state_of(observed.agent)
    return stand(state, inputs(observed, desired, state, now))


def relies_on_routes(before: RolloutState, after: RolloutState) -> bool:
    """Whether a move is only right once requests go as the last one said.

    That is one that gives the canary more, or everything for good, and one that takes pods from a revision because it
    has lost its requests. Taking requests away waits for nothing.
    """
    if before.stable is None:
        return False
    more = after.canary == before.canary and (after.weight > before.weight or after.mirror > before.mirror)
    return more or after.stable != before.stable or not before.retiring.keys() <= after.retiring.keys()


def inputs(observed: Observed, desired: Desired, state: RolloutState, now: dt.datetime) -> Inputs:
    """All that the decision depends on."""
    spec, rollout = desired.agent.spec, effective_rollout(observed, desired)
    return Inputs(
        now=now,
        target=desired.revision,
        rollout=rollout,
        provider=spec.traffic.provider,
        replicas_needed=replicas_needed(observed, desired, state),
        min_replicas=spec.autoscaling.min_replicas if spec.autoscaling else spec.replicas,
        revisions=views(observed, desired),
        analysis=_analysis(observed, rollout, state, now),
        checklist=checklists.result(observed, desired, state),
        action=action_of(observed.agent["metadata"].get("annotations") or {}),
        suspended=spec.suspend,
        sticky_seconds=spec.traffic.stickiness.ttl_seconds if spec.traffic.stickiness else None,
    )


def _analysis(observed: Observed, rollout: Rollout, state: RolloutState, now: dt.datetime) -> AnalysisResult | None:
    if observed.figures is None or rollout.analysis is None:
        return None
    return analyse(state, rollout, observed.figures, now, observed.answers)


def effective_rollout(observed: Observed, desired: Desired) -> Rollout:
    """The spec's, but held where weights cannot be kept: traffic that nothing splits must not count as a canary's."""
    rollout = desired.agent.spec.rollout
    if rollout.strategy in WEIGHTED and not can_route(observed, desired):
        return rollout.model_copy(update={"paused": True})
    return rollout


def can_route(observed: Observed, desired: Desired) -> bool:
    """Whether the cluster has what the spec routes with."""
    kind = traffic.KINDS.get(desired.agent.spec.traffic.provider)
    return kind is None or kind.route.kind in observed.served


def replicas_needed(observed: Observed, desired: Desired, state: RolloutState) -> int:
    """Pods that the agent's traffic needs now: a fixed number, or what the autoscaler came to."""
    spec = desired.agent.spec
    if spec.autoscaling is None:
        return spec.replicas
    name = state.stable or UNREVISED
    serving, scaler = observed.deployments.get(name), observed.of_revision(AUTOSCALERS.kind, name)
    pods_now = int(serving["spec"].get("replicas", 1)) if serving else spec.replicas
    return spec.autoscaling.bounded(max(pods_now, desired_replicas(scaler)))


def views(observed: Observed, desired: Desired) -> dict[str, RevisionView]:
    """Every revision that is known or runs, oldest first."""
    deployments, snapshots = observed.deployments, observed.snapshots
    names = dict.fromkeys([*snapshots, desired.revision, *deployments])
    return {
        name: _view(observed, name, deployments.get(name), snapshots.get(name)) for name in names if name != UNREVISED
    }


def _view(observed: Observed, name: str, deployment: Manifest | None, snapshot: Snapshot | None) -> RevisionView:
    return RevisionView(
        name=name,
        desired=int(deployment["spec"].get("replicas", 1)) if deployment else 0,
        ready=observed.ready_pods(name) if deployment else 0,
        exists=deployment is not None,
        problem=_problem(observed, name, deployment),
        number=snapshot.number if snapshot else 0,
    )


def _problem(observed: Observed, name: str, deployment: Manifest | None) -> str | None:
    """What keeps a revision's pods from running, in the cluster's words."""
    behind = (one for (revision, _), one in observed.layers.items() if revision == name)
    for failure in (condition(one, "ReplicaFailure") for one in (deployment, *behind)):
        if failure is not None and failure["status"] == "True":
            return pods.shorten(str(failure.get("message", "")))
    own = (pod for pod in observed.working_pods if revision_of(pod) == name)
    waiting = next(pods.waiting(own, TROUBLE), None)
    if waiting is None:
        return _model_trouble(observed, name) if deployment is None else pods.lacks(observed, name)
    said = f": {waiting.message}" if waiting.message else ""
    return f"container {waiting.container!r} of pod {waiting.pod!r} is in {waiting.reason}{said}"


def _model_trouble(observed: Observed, name: str) -> str | None:
    """What the spec's model sync said last, which the spec's own revision waits for."""
    synced = condition(observed.agent, MODEL_SYNCED)
    if observed.desired is None or name != observed.desired.revision:
        return None
    return f"{synced['reason']}: {synced['message']}" if synced is not None and synced["status"] == "False" else None


def render(observed: Observed, desired: Desired, decision: Decision, told: Artifact | None) -> Rendered:
    """The children that the decision wants, and pods that are told to load an artifact while they run."""
    gateways = replicas_needed(observed, desired, decision.state)
    behind = layers.sizes(observed, decision, gateways)
    return desired.render(observed.snapshots, routing(observed, desired, decision), decision.scale, told, behind)


def routing(observed: Observed, desired: Desired, decision: Decision) -> Routing:
    """Where requests go.

    Without routes, weights become shares of pods: the agent's Service selects the pods of all revisions while more than
    one has a weight. While no revision is stable, whatever runs serves, also what an earlier operator made; but where
    that made nothing, a revision that has yet to pass its checklist doesn't.
    """
    stable = decision.state.stable
    if stable is None:
        checked = desired.agent.spec.rollout.checklist is None or decision.state.checked is not None
        return Routing() if checked or UNREVISED in observed.deployments else Routing(service=NOBODY)
    carrying = [name for name, weight in decision.weights.items() if weight > 0]
    if desired.agent.spec.traffic.provider in ROUTED:
        return Routing(
            decision.weights,
            matched=decision.matched,
            service=stable,
            mirror=decision.mirror,
            sticky=decision.sticky,
        )
    return Routing(decision.weights, service=carrying[0] if len(carrying) == 1 else None)


def gate(observed: Observed, rendered: Rendered, revision: str, now: dt.datetime) -> Gate:
    """Where the model of a revision stands."""
    model = rendered.agents[revision].spec.model if revision in rendered.agents else None
    children = rendered.revisions.get(revision)
    return model_sync.gate(observed, children.model_job if children else None, model, now)
