"""Between what is observed and the pure rollout decision: what it is asked, and what its answer means for children.

The decision knows revisions, weights and numbers of pods. Here they are read off Deployments and pods, and turned into
what the agent's Service selects and what its routes say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.api import ISTIO, MODEL_SYNCED, Rollout, RolloutStatus
from supportfleet_operator.cluster.resources import AUTOSCALERS, VIRTUAL_SERVICES
from supportfleet_operator.cluster.scraper import Target
from supportfleet_operator.reconcile.desired import Desired, Rendered
from supportfleet_operator.reconcile.observe import Observed, revision_of
from supportfleet_operator.reconcile.policies import model_sync, pods
from supportfleet_operator.reconcile.policies.base import condition
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.resources import Routing
from supportfleet_operator.rollout import (
    AnalysisResult,
    Decision,
    Inputs,
    RevisionView,
    RolloutState,
    action_of,
    analyse,
    decide,
    due,
    scraped,
)

UNREVISED: Final = ""
"""Stands for the Deployment of an operator that knew no revisions."""
MEASURED: Final = 32
"""Pods of one revision whose figures are read: enough for a verdict, however many there are."""
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
        action=action_of(observed.agent["metadata"].get("annotations") or {}),
        suspended=spec.suspend,
    )


def to_measure(observed: Observed, now: dt.datetime) -> dict[str, dict[str, Target]] | None:
    """Pods whose figures the decision wants now, by revision; None while it wants none."""
    desired = observed.desired
    if desired is None:
        return None
    state = state_of(observed.agent)
    wait = due(state, inputs(observed, desired, state, now))
    if wait is None or wait > 0:
        return None
    return {name: _targets(observed, desired, name) for name in scraped(state)}


def _targets(observed: Observed, desired: Desired, revision: str) -> dict[str, Target]:
    """Pods of a revision that run, the oldest first: those that are measured stay the same as far as possible."""
    agent = desired.as_of(revision, observed.snapshots)
    if agent is None:
        return {}
    own = [one for one in observed.agent_pods if revision_of(one) == revision and one["status"].get("podIP")]
    own.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))
    port = agent.spec.template.port
    return {pod["metadata"]["name"]: Target(pod["status"]["podIP"], port) for pod in own[:MEASURED]}


def _analysis(observed: Observed, rollout: Rollout, state: RolloutState, now: dt.datetime) -> AnalysisResult | None:
    return None if observed.figures is None else analyse(state, rollout, observed.figures, now)


def effective_rollout(observed: Observed, desired: Desired) -> Rollout:
    """The spec's, but held where weights cannot be kept: traffic that nothing splits must not count as a canary's."""
    rollout = desired.agent.spec.rollout
    if rollout.strategy == "Canary" and not can_route(observed, desired):
        return rollout.model_copy(update={"paused": True})
    return rollout


def can_route(observed: Observed, desired: Desired) -> bool:
    """Whether the cluster has what the spec routes with."""
    return desired.agent.spec.traffic.provider != ISTIO or VIRTUAL_SERVICES.kind in observed.served


def replicas_needed(observed: Observed, desired: Desired, state: RolloutState) -> int:
    """Pods that the agent's traffic needs now: a fixed number, or what the autoscaler came to."""
    spec = desired.agent.spec
    if spec.autoscaling is None:
        return spec.replicas
    name = state.stable or UNREVISED
    serving, scaler = observed.deployments.get(name), observed.of_revision(AUTOSCALERS.kind, name)
    pods_now = int(serving["spec"].get("replicas", 1)) if serving else spec.replicas
    asked = int((scaler.get("status") or {}).get("desiredReplicas", 0)) if scaler else 0
    return max(spec.autoscaling.min_replicas, min(max(pods_now, asked), spec.autoscaling.max_replicas))


def views(observed: Observed, desired: Desired) -> dict[str, RevisionView]:
    """Every revision that is known or runs, oldest first."""
    deployments = observed.deployments
    names = [*observed.snapshots, desired.revision, *deployments]
    return {name: _view(observed, name) for name in dict.fromkeys(names) if name != UNREVISED}


def _view(observed: Observed, name: str) -> RevisionView:
    deployment = observed.deployments.get(name)
    return RevisionView(
        name=name,
        desired=int(deployment["spec"].get("replicas", 1)) if deployment else 0,
        ready=observed.ready_pods(name) if deployment else 0,
        exists=deployment is not None,
        problem=_problem(observed, name),
        number=snapshot.number if (snapshot := observed.snapshots.get(name)) else 0,
    )


def _problem(observed: Observed, name: str) -> str | None:
    """What keeps a revision's pods from running, in the cluster's words."""
    failure = condition(observed.deployments.get(name), "ReplicaFailure")
    if failure is not None and failure["status"] == "True":
        return pods.shorten(str(failure.get("message", "")))
    own = (pod for pod in observed.agent_pods if revision_of(pod) == name)
    waiting = next(pods.waiting(own, TROUBLE), None)
    if waiting is None:
        return _model_trouble(observed, name)
    said = f": {waiting.message}" if waiting.message else ""
    return f"container {waiting.container!r} of pod {waiting.pod!r} is in {waiting.reason}{said}"


def _model_trouble(observed: Observed, name: str) -> str | None:
    """What the spec's model sync said last, which the spec's own revision waits for."""
    synced = condition(observed.agent, MODEL_SYNCED)
    if observed.desired is None or name != observed.desired.revision or name in observed.deployments:
        return None
    return f"{synced['reason']}: {synced['message']}" if synced is not None and synced["status"] == "False" else None


def render(observed: Observed, desired: Desired, decision: Decision) -> Rendered:
    """The children that the decision wants."""
    return desired.render(observed.snapshots, routing(observed, desired, decision), decision.scale)


def routing(observed: Observed, desired: Desired, decision: Decision) -> Routing:
    """Where requests go.

    Without routes, weights become shares of pods: the agent's Service selects the pods of all revisions while more than
    one has a weight. While no revision is stable, whatever runs serves, also what an earlier operator made.
    """
    stable = decision.state.stable
    if stable is None:
        return Routing()
    carrying = [name for name, weight in decision.weights.items() if weight > 0]
    if desired.agent.spec.traffic.provider == ISTIO:
        return Routing(decision.weights, matched=_matched(observed, decision), service=stable)
    return Routing(decision.weights, service=carrying[0] if len(carrying) == 1 else None)


def _matched(observed: Observed, decision: Decision) -> str | None:
    """The canary, while it is one and has a pod that could answer."""
    state = decision.state
    canary = state.canary
    if canary is None or state.phase not in {"Stepping", "Paused", "Promoting"} or not observed.ready_pods(canary):
        return None
    return canary


def gate(observed: Observed, rendered: Rendered, revision: str, now: dt.datetime) -> Gate:
    """Where the model of a revision stands."""
    model = rendered.agents[revision].spec.model if revision in rendered.agents else None
    children = rendered.revisions.get(revision)
    return model_sync.gate(observed, children.model_job if children else None, model, now)
