"""``status``: what the operator found, and how far it got."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListMap, ListSet
from supportfleet_operator.api.types import Int32, Int64

READY: Final = "Ready"
"""The agent runs as its spec says: pods Ready, on the desired image, model and configuration."""
MODEL_SYNCED: Final = "ModelSynced"
"""The artifact of spec.model was fetched and its digest verified. Absent without spec.model."""
RECONCILING: Final = "Reconciling"
"""kstatus: present and True only while the operator moves towards the spec."""
STALLED: Final = "Stalled"
"""kstatus: present and True only where the operator can't go on without a change from outside."""
ACCEPTED: Final = "Accepted"
"""The spec is valid, and everything that it refers to exists."""
SCALING_ACTIVE: Final = "ScalingActive"
"""The autoscaler can read its metrics and scale. Absent without spec.autoscaling."""
PROGRESSING: Final = "Progressing"
"""How far the rollout of a new revision is."""
TRAFFIC_ROUTED: Final = "TrafficRouted"
"""Requests go to revisions by their weights."""

Phase = Literal["Pending", "SyncingModel", "Progressing", "Ready", "Degraded", "Suspended"]
RolloutPhase = Literal["Idle", "Starting", "Stepping", "Paused", "Promoting", "Aborting", "RolledBack"]
Verdict = Literal["Pass", "Fail", "Inconclusive", "NoData"]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]

NOT_SEEN: Final = -1
"""The generation that a status without any was found for: to kstatus, an agent that nobody has seen isn't done."""

MAX_SAMPLED: Final = 64
"""Pods whose figures are remembered: enough of them for a verdict, however many there are."""
MAX_RETIRING: Final = 16
"""Revisions without traffic that still have their pods."""


class StatusModel(ApiModel):
    """A part of the status; fields that a newer operator wrote are passed over."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusModel):
    """One aspect of the agent's state, as in metav1.Condition."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=316)] = Field(description="Name of the aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Why, in one CamelCase word for programs."
    )
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(
        description="Why, in a sentence for people, with the field to look at and the remedy."
    )
    last_transition_time: Timestamp = Field(description="When status last changed.")
    observed_generation: Annotated[Int64, Field(ge=0)] | None = Field(
        None, description="The metadata.generation that this was found for."
    )


class ModelStatus(StatusModel):
    """The model that the pods run on."""

    version: str | None = Field(None, description="Version that was synced last.")
    digest: str | None = Field(None, description="Digest that was verified last.")
    loaded_pods: Int32 | None = Field(None, description="Ready pods that have it loaded.")
    channel: str | None = Field(None, description="The channel of spec.model that was looked at last.")
    channel_version: str | None = Field(None, description="Version that the channel pointed at.")
    channel_digest: str | None = Field(None, description="Digest that the channel pointed at.")
    channel_checked_at: Timestamp | None = Field(None, description="When the channel last answered.")


class AnalysisOutcome(StatusModel):
    """What one figure was, and what that means."""

    metric: Annotated[str, StringConstraints(max_length=63)] = Field(description="Name of the figure.")
    verdict: Verdict = Field(description="Whether it passed; Inconclusive with too few samples, NoData with none.")
    value: float | None = Field(None, description="Value for the new revision.")
    threshold: float | None = Field(None, description="The limit that decided.")
    stable: float | None = Field(None, description="Value for the stable revision at the same time.")
    samples: Int64 | None = Field(None, description="Requests that it was measured on; none for a query.")
    message: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        None, description="Why there is no value, such as what Prometheus answered instead."
    )


class RolloutStatus(StatusModel):
    """How far the rollout is. Written before it is acted upon, so that any operator goes on where the last one was."""

    phase: RolloutPhase | None = Field(None, description="What the rollout is doing.")
    stable_revision: str | None = Field(None, description="The revision that serves what no rollout takes.")
    canary_revision: str | None = Field(None, description="The revision that is being rolled out.")
    previous_revision: str | None = Field(None, description="The stable revision before: what undo goes back to.")
    current_step: Int32 | None = Field(None, description="Index into spec.rollout.steps, from 0.")
    current_weight: Int32 | None = Field(None, description="Percent of the traffic for the canary revision.")
    current_mirror: Int32 | None = Field(
        None, description="Percent of the requests that the canary revision gets a copy of."
    )
    step_started_at: Timestamp | None = Field(None, description="When the step began.")
    phase_started_at: Timestamp | None = Field(None, description="When the phase began.")
    failed_revision: str | None = Field(
        None, description="The revision that was rolled back; it isn't tried again until the spec changes or on retry."
    )
    undone_revision: str | None = Field(
        None, description="The revision that undo went back from; it isn't tried again until the spec changes."
    )
    retiring: Annotated[dict[str, Timestamp], Field(max_length=MAX_RETIRING)] | None = Field(
        None,
        description=(
            "Revisions without traffic that still have their pods, and since when: "
            "they are scaled down spec.rollout.scaleDownDelaySeconds later, "
            "and those that customers stay with no sooner than spec.traffic.stickiness.ttlSeconds later."
        ),
    )
    sticky_revisions: Annotated[tuple[str, ...], Field(max_length=MAX_RETIRING), ListSet()] | None = Field(
        None, description="Those of retiring that customers stay with, because of spec.traffic.stickiness."
    )
    checked_revision: str | None = Field(
        None, description="The canary revision, once it has passed the checks of spec.rollout.checklist."
    )
    lost_at: Timestamp | None = Field(
        None, description="Since when the canary revision, which had ready pods, has none; absent while it has some."
    )
    reason: str | None = Field(None, description="Why the rollout is where it is, in one CamelCase word.")
    message: str | None = Field(None, description="Why, in a sentence for people, with the figures and the remedy.")
    last_action_id: str | None = Field(None, description="The supportfleet.dev/action-id that was carried out last.")
    last_analysis: Annotated[tuple[AnalysisOutcome, ...], Field(max_length=8), ListMap(("metric",))] | None = Field(
        None, description="The newest measurement."
    )
    last_analysis_at: Timestamp | None = Field(None, description="When it was made.")
    analysis_failures: Int32 | None = Field(None, description="Failed measurements of the canary revision so far.")
    baseline: (
        Annotated[
            dict[str, Annotated[dict[str, float], Field(max_length=128)]],
            Field(max_length=MAX_SAMPLED),
        ]
        | None
    ) = Field(None, description="Counters of pods when the measurement began, which the next one is compared with.")


class LayerStatus(StatusModel):
    """One layer behind the gateway, of all revisions."""

    name: Literal["worker", "tools"] = Field(description="Name of the layer.")
    replicas: Int32 = Field(0, description="Pods that exist.")
    ready_replicas: Int32 = Field(0, description="Pods that are ready.")


class SupportAgentStatus(StatusModel):
    """What the operator found. Written by the operator only."""

    observed_generation: Int64 | None = Field(
        None,
        description="The metadata.generation that this status was found for; -1 before the operator has seen any.",
        json_schema_extra={"default": NOT_SEEN},
    )
    phase: Phase | None = Field(None, description="The state in one word, for people; programs read conditions.")
    replicas: Int32 | None = Field(None, description="Pods that exist.")
    ready_replicas: Int32 | None = Field(None, description="Pods that are ready for traffic.")
    updated_replicas: Int32 | None = Field(None, description="Pods that run what spec says now.")
    selector: str | None = Field(None, description="Label selector of the pods, for autoscalers.")
    layers: Annotated[tuple[LayerStatus, ...], Field(max_length=2), ListMap(("name",))] | None = Field(
        None, description="The layers behind the gateway, whose pods the numbers above count, with topology Layered."
    )
    model: ModelStatus | None = Field(None, description="The model that the pods run on.")
    rollout: RolloutStatus | None = Field(None, description="How far the rollout of a new revision is.")
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), ListMap(("type",))] | None = Field(
        None,
        description=(
            "Ready, ModelSynced, Accepted, ScalingActive, Progressing and TrafficRouted, "
            "and while they hold Reconciling and Stalled."
        ),
    )
