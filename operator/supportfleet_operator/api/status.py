"""``status``: what the operator found, and how far it got."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListMap
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

Phase = Literal["Pending", "SyncingModel", "Progressing", "Ready", "Degraded", "Suspended"]


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
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = Field(
        description="When status last changed."
    )
    observed_generation: Annotated[Int64, Field(ge=0)] | None = Field(
        None, description="The metadata.generation that this was found for."
    )


class ModelStatus(StatusModel):
    """The model that the pods run on."""

    version: str | None = Field(None, description="Version that was synced last.")
    digest: str | None = Field(None, description="Digest that was verified last.")
    loaded_pods: Int32 | None = Field(None, description="Ready pods that have it loaded.")


class SupportAgentStatus(StatusModel):
    """What the operator found. Written by the operator only."""

    observed_generation: Int64 | None = Field(
        None, description="The metadata.generation that this status was found for."
    )
    phase: Phase | None = Field(None, description="The state in one word, for people; programs read conditions.")
    replicas: Int32 | None = Field(None, description="Pods that exist.")
    ready_replicas: Int32 | None = Field(None, description="Pods that are ready for traffic.")
    updated_replicas: Int32 | None = Field(None, description="Pods that run what spec says now.")
    selector: str | None = Field(None, description="Label selector of the pods, for autoscalers.")
    model: ModelStatus | None = Field(None, description="The model that the pods run on.")
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), ListMap(("type",))] | None = Field(
        None,
        description=("Ready, ModelSynced, Accepted and ScalingActive, and while they hold Reconciling and Stalled."),
    )
