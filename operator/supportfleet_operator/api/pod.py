"""The parts of core/v1 that a SupportAgent takes over from pods: environment, resources, placement.

The schemas are structural and no wider than what the API server would accept in a pod, so that a mistake is refused
where it was made and not when the Deployment is applied.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import Rule, exactly_one
from supportfleet_operator.api.types import (
    DataKey,
    Int32,
    Int64,
    LabelValue,
    ObjectName,
    Quantity,
    quantity,
)

RESERVED_ENV: Final = {
    "AGENT_NAME": "metadata.name",
    "ANTHROPIC_API_KEY": "spec.llm.apiKeySecretRef",
    "ANTHROPIC_BASE_URL": "spec.llm.baseURL",
    "API_PORT": "spec.template.port",
    "AWS_ACCESS_KEY_ID": "spec.model.credentialsSecretRef",
    "AWS_ENDPOINT_URL": "spec.model.endpoint",
    "AWS_REGION": "spec.model.region",
    "AWS_SECRET_ACCESS_KEY": "spec.model.credentialsSecretRef",
    "CLAUDE_MAX_TOKENS": "spec.llm.maxTokens",
    "CLAUDE_MODEL": "spec.llm.model",
    "CLAUDE_TIMEOUT": "spec.llm.timeoutSeconds",
    "CONFIG_DIR": "spec.config",
    "CONFIG_FILE": "spec.config",
    "DATABASE_URL": "spec.database.secretRef",
    "LLM_PROVIDER": "spec.llm.provider",
    "MODEL_BUCKET": "spec.model.uri",
    "MODEL_DIGEST": "spec.model.digest",
    "MODEL_DIR": "spec.model.cache",
    "MODEL_VERSION": "spec.model.version",
    "POD_NAME": "the pod's own name",
    "POD_NAMESPACE": "the pod's own namespace",
}
"""What the operator sets itself, and the field that it sets it from."""

_RESERVED_CEL: Final = "{" + ", ".join(f"'{name}': '{field}'" for name, field in RESERVED_ENV.items()) + "}"


class SecretKeyRef(ApiModel):
    """A key of a Secret in the agent's namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    key: DataKey = Field(description="Key within the Secret.")
    optional: bool | None = Field(None, description="Start without the variable when the Secret or key is missing.")


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the agent's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap, in the agent's namespace.")
    key: DataKey = Field(description="Key within the ConfigMap.")
    optional: bool | None = Field(None, description="Start without the variable when the ConfigMap or key is missing.")


class FieldRef(ApiModel):
    """A field of the pod itself."""

    api_version: Literal["v1"] | None = Field(None, description="API version of the path; v1.")
    field_path: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Path of the field, such as status.podIP or metadata.labels['team']."
    )


class ResourceFieldRef(ApiModel):
    """A resource request or limit of a container."""

    container_name: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        None, description="Name of the container; the agent's own when unset."
    )
    resource: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="What to read, such as limits.memory."
    )
    divisor: Quantity | None = Field(None, description="Unit of the value, such as 1Mi.")


class EnvVarSource(ApiModel):
    """Where a variable's value comes from."""

    rules: ClassVar = (
        exactly_one(
            "fieldRef",
            "resourceFieldRef",
            "configMapKeyRef",
            "secretKeyRef",
            message="set exactly one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef",
        ),
    )

    field_ref: FieldRef | None = Field(None, description="A field of the pod.")
    resource_field_ref: ResourceFieldRef | None = Field(None, description="A resource request or limit.")
    config_map_key_ref: ConfigMapKeyRef | None = Field(None, description="A key of a ConfigMap.")
    secret_key_ref: SecretKeyRef | None = Field(None, description="A key of a Secret.")


class EnvVar(ApiModel):
    """One more environment variable for the agent's container."""

    rules: ClassVar = (
        Rule(
            cel="!(has(self.value) && self.value != '' && has(self.valueFrom))",
            message="set value or valueFrom, not both",
            check=lambda env: not (env.value and env.value_from),
            field_path=".valueFrom",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=f"!(self.name in {_RESERVED_CEL})",
            message="is set by the operator; set the field of the SupportAgent that it comes from",
            message_cel=(
                f"self.name + ' is set by the operator from ' + {_RESERVED_CEL}[self.name] + '; set that instead'"
            ),
            check=lambda env: env.name not in RESERVED_ENV,
            describe=lambda env: f"{env.name} is set by the operator from {RESERVED_ENV[env.name]}; set that instead",
            field_path=".name",
            reason="FieldValueForbidden",
        ),
    )

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"),
    ] = Field(description="Name of the variable. Names that the operator sets itself are refused.")
    value: Annotated[str, StringConstraints(max_length=32768)] | None = Field(
        None, description="Its value; $(NAME) is replaced by an earlier variable."
    )
    value_from: EnvVarSource | None = Field(None, description="Where to take the value from.")


class ConfigMapEnvSource(ApiModel):
    """All keys of a ConfigMap."""

    name: ObjectName = Field(description="Name of the ConfigMap, in the agent's namespace.")
    optional: bool | None = Field(None, description="Start without it when it is missing.")


class SecretEnvSource(ApiModel):
    """All keys of a Secret."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    optional: bool | None = Field(None, description="Start without it when it is missing.")


class EnvFromSource(ApiModel):
    """A ConfigMap or Secret, all of whose keys become environment variables."""

    rules: ClassVar = (
        exactly_one("configMapRef", "secretRef", message="set exactly one of configMapRef and secretRef"),
    )

    prefix: Annotated[str, StringConstraints(max_length=253)] | None = Field(None, description="Put before every name.")
    config_map_ref: ConfigMapEnvSource | None = Field(None, description="The ConfigMap.")
    secret_ref: SecretEnvSource | None = Field(None, description="The Secret.")


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


class Resources(ApiModel):
    """Requests and limits of one pod of the agent."""

    rules: ClassVar = (
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
