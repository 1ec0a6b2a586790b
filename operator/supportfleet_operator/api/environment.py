"""Environment variables that users add to an agent's container, and those that the operator sets and they can't."""

import json
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import Rule, exactly_one
from supportfleet_operator.api.types import DataKey, ObjectName, Quantity

RESERVED_ENV: Final = {
    "AGENT_NAME": "metadata.name",
    "AGENT_REVISION": "the revision's own name",
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
    "MODEL_CHANNEL": "spec.model.channel",
    "MODEL_DIGEST": "spec.model.digest",
    "MODEL_DIR": "spec.model.cache",
    "MODEL_FILE": "spec.model.reload",
    "MODEL_VERSION": "spec.model.version",
    "POD_NAME": "the pod's own name",
    "POD_NAMESPACE": "the pod's own namespace",
}
"""What the operator sets itself, and the field that it sets it from."""

_RESERVED_CEL: Final = json.dumps(RESERVED_ENV)
"""A map literal of CEL."""


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
