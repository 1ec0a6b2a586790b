"""``spec.autoscaling`` and ``spec.availability``: how many pods, and how many of them at least."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import Rule, at_most_one
from supportfleet_operator.api.types import Int32, IntOrPercent, Quantity

MAX_REPLICAS: Final = 10_000


class ScalingPolicy(ApiModel):
    """How far one step of scaling may go."""

    type: Literal["Pods", "Percent"] = Field(description="Unit of value.")
    value: Annotated[Int32, Field(ge=1)] = Field(
        description="Pods, or percent of the pods, that may be added or removed."
    )
    period_seconds: Annotated[Int32, Field(ge=1, le=1800)] = Field(
        description="Seconds within which value may be used up."
    )


class ScalingRules(ApiModel):
    """How scaling goes in one direction."""

    stabilization_window_seconds: Annotated[Int32, Field(ge=0, le=3600)] | None = Field(
        None, description="Seconds of past recommendations to consider, so that the number doesn't flap."
    )
    select_policy: Literal["Max", "Min", "Disabled"] | None = Field(
        None, description="Which policy holds where several apply; Disabled turns this direction off. Default: Max."
    )
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=8)] | None = Field(
        None, description="Steps that are allowed. Default: the HorizontalPodAutoscaler's own."
    )
    tolerance: Quantity | None = Field(
        None, description="How far the metric may be off its target with no scaling, such as 0.1."
    )


class ScalingBehavior(ApiModel):
    """How fast the autoscaler scales."""

    scale_up: ScalingRules | None = Field(None, description="How pods are added.")
    scale_down: ScalingRules | None = Field(None, description="How pods are removed.")


class Autoscaling(ApiModel):
    """A HorizontalPodAutoscaler for the agent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            message="must be at least minReplicas",
            check=lambda scaling: scaling.min_replicas <= scaling.max_replicas,
            field_path=".maxReplicas",
        ),
    )

    min_replicas: Annotated[Int32, Field(ge=1, le=MAX_REPLICAS)] = Field(1, description="Pods that always run.")
    max_replicas: Annotated[Int32, Field(ge=1, le=MAX_REPLICAS)] = Field(description="Pods that may run at most.")
    target_cpu_utilization_percentage: Annotated[Int32, Field(ge=1, le=1000)] = Field(
        70,
        alias="targetCPUUtilizationPercentage",
        description="CPU that the pods should use on average, in percent of spec.template.resources.requests.cpu.",
    )
    target_queue_depth: Annotated[Int32, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description=(
            "Messages that should wait in the queue for each pod, on average. "
            "Accepted, but without effect until the operator's external metrics adapter is installed."
        ),
    )
    behavior: ScalingBehavior | None = Field(
        None, description="How fast to scale. Default: the HorizontalPodAutoscaler's own."
    )

    def bounded(self, pods: int) -> int:
        """As many pods, or as near to that as may run."""
        return max(self.min_replicas, min(pods, self.max_replicas))


class Availability(ApiModel):
    """A PodDisruptionBudget for the agent: how many pods a node drain may take at once."""

    rules: ClassVar[tuple[Rule, ...]] = (
        at_most_one("maxUnavailable", "minAvailable", message="set maxUnavailable or minAvailable, not both"),
    )

    max_unavailable: IntOrPercent | None = Field(
        None, description="Pods that may be gone at once: a number, or a percentage such as 25%. Default: 1."
    )
    min_available: IntOrPercent | None = Field(
        None, description="Pods that must stay: a number, or a percentage such as 75%."
    )
