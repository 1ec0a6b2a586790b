"""The parts of core/v1 that a SupportAgent takes over from pods: resources, labels and placement.

The schemas are structural and no wider than what the API server would accept in a pod, so that a mistake is refused
where it was made and not when the Deployment is applied.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import Rule
from supportfleet_operator.api.types import (
    FRACTIONAL,
    Int32,
    Int64,
    LabelValue,
    Quantity,
    is_fractional,
    quantity,
)

ResourceList = Annotated[
    dict[Annotated[str, StringConstraints(max_length=253)], Quantity],
    Field(max_length=16),
]


def _requests_within_limits(resources: "Resources") -> bool:
    limits = resources.limits or {}
    return all(
        name not in limits or quantity(wanted) <= quantity(limits[name])
        for name, wanted in (resources.requests or {}).items()
    )


def _whole_bytes(field: str) -> Rule:
    """The rule that memory is not in thousandths of bytes: 512m is almost always meant to be 512M or 512Mi."""
    return Rule(
        cel=(
            f"!has(self.{field}) || !('memory' in self.{field}) || "
            f"!string(self.{field}['memory']).matches('{FRACTIONAL}')"
        ),
        message="memory must be in bytes, such as 512Mi; the suffix m means thousandths",
        check=lambda resources: not is_fractional((getattr(resources, field) or {}).get("memory", 0)),
        field_path=f".{field}",
    )


class Resources(ApiModel):
    """Requests and limits of one pod of the agent."""

    rules: ClassVar = (
        _whole_bytes("requests"),
        _whole_bytes("limits"),
        Rule(
            cel=(
                "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
                "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)"
            ),
            message="every request must be at most the limit of the same name",
            check=_requests_within_limits,
            field_path=".requests",
        ),
    )

    requests: ResourceList | None = Field(
        None, description="What the scheduler sets aside for a pod, by name (cpu, memory, …)."
    )
    limits: ResourceList | None = Field(None, description="What a pod may not exceed, by name.")


class Toleration(ApiModel):
    """A taint of nodes that the agent's pods tolerate."""

    rules: ClassVar = (
        Rule(
            cel="!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
            message="must be empty where operator is Exists",
            check=lambda toleration: not (toleration.operator == "Exists" and toleration.value),
            field_path=".value",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            message="must be Exists where key is empty: that tolerates every taint",
            check=lambda toleration: bool(toleration.key) or toleration.operator == "Exists",
            field_path=".operator",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="only has a meaning where effect is NoExecute",
            check=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
            field_path=".tolerationSeconds",
            reason="FieldValueForbidden",
        ),
    )

    key: Annotated[str, StringConstraints(max_length=317)] | None = Field(
        None, description="Key of the taint; empty for all."
    )
    operator: Literal["Exists", "Equal"] | None = Field(None, description="How the value compares. Default: Equal.")
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; all effects when unset."
    )
    toleration_seconds: Int64 | None = Field(
        None, description="Seconds to stay on a node after a NoExecute taint appears; for ever when unset."
    )


Labels = Annotated[dict[Annotated[str, StringConstraints(max_length=317)], LabelValue], Field(max_length=64)]


class LabelSelectorRequirement(ApiModel):
    """A condition on one label."""

    rules: ClassVar = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            message="must be given for In and NotIn, and only for them",
            check=lambda wanted: (wanted.operator in {"In", "NotIn"}) == bool(wanted.values),
            field_path=".values",
        ),
    )

    key: Annotated[str, StringConstraints(min_length=1, max_length=317)] = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How it compares with the values.")
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32)] | None = Field(
        None, description="Values to compare with; none for Exists and DoesNotExist."
    )


class LabelSelector(ApiModel):
    """A choice of objects by their labels; an empty one chooses all."""

    match_labels: Labels | None = Field(None, description="Labels that must all be there with these values.")
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] | None = Field(
        None, description="Conditions that must all hold."
    )


class TopologySpreadConstraint(ApiModel):
    """How the agent's pods spread over nodes, zones or the like."""

    rules: ClassVar = (
        Rule(
            cel="!has(self.minDomains) || self.whenUnsatisfiable == 'DoNotSchedule'",
            message="only has a meaning where whenUnsatisfiable is DoNotSchedule",
            check=lambda spread: spread.min_domains is None or spread.when_unsatisfiable == "DoNotSchedule",
            field_path=".minDomains",
            reason="FieldValueForbidden",
        ),
    )

    max_skew: Annotated[Int32, Field(ge=1)] = Field(description="How far the numbers of pods may differ.")
    topology_key: Annotated[str, StringConstraints(min_length=1, max_length=317)] = Field(
        description="Label of the nodes that names the domain, such as topology.kubernetes.io/zone."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="Whether a pod waits, or is placed anyway, where the skew can't be kept."
    )
    label_selector: LabelSelector | None = Field(
        None, description="Pods that are counted. Default: those of the agent."
    )
    min_domains: Annotated[Int32, Field(ge=1)] | None = Field(None, description="Domains that must exist at least.")
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        None, description="Whether nodes that the pod's affinity excludes count. Default: Honor."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        None, description="Whether nodes with taints that the pod doesn't tolerate count. Default: Ignore."
    )
    match_label_keys: (
        Annotated[tuple[Annotated[str, StringConstraints(max_length=317)], ...], Field(max_length=8)] | None
    ) = Field(None, description="Labels whose values the counted pods share with the new one.")


FreeObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
