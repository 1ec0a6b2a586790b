"""``spec.template``: the pods of an agent, as far as users choose them.

What Pod Security's ``restricted`` level asks for is not up for choice, and neither are probes, volumes and the service
account: the operator sets them the same for every agent.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.environment import EnvFromSource, EnvVar
from supportfleet_operator.api.pod import (
    FreeObject,
    Labels,
    Resources,
    Toleration,
    TopologySpreadConstraint,
)
from supportfleet_operator.api.rules import ListMap, Rule, matches
from supportfleet_operator.api.types import Int32, Int64, ObjectName, label_keys

IMAGE: Final = (
    r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?$"
)

RESERVED_LABEL_KEYS: Final = (
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
)
OWN_PREFIX: Final = "supportfleet.dev/"

DEFAULT_RESOURCES: Final = Resources(
    requests={"cpu": "100m", "memory": "256Mi"},
    limits={"memory": "1Gi"},
)

_NOT_OURS: Final = Rule(
    cel=f"self.all(key, !key.startsWith('{OWN_PREFIX}') && !(key in {list(RESERVED_LABEL_KEYS)}))",
    message=f"the operator sets {', '.join(RESERVED_LABEL_KEYS)} and all that begins with {OWN_PREFIX} itself",
    check=lambda keys: not any(key.startswith(OWN_PREFIX) or key in RESERVED_LABEL_KEYS for key in keys),
    reason="FieldValueForbidden",
)

Annotations = Annotated[
    dict[Annotated[str, StringConstraints(max_length=317)], Annotated[str, StringConstraints(max_length=16384)]],
    Field(max_length=64),
]


class ImagePullSecret(ApiModel):
    """A Secret with the credentials of an image registry."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")


class Template(ApiModel):
    """The pods of the agent."""

    image: Annotated[
        str,
        StringConstraints(min_length=1, max_length=512),
        matches(
            IMAGE,
            "must be an image reference, such as registry.example.com/team/agent:1.4.2 or …@sha256:<64 hex digits>",
        ),
    ] = Field(description="Image of the agent runtime. It also runs the model sync.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When nodes fetch the image."
    )
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=8), ListMap(("name",))] | None = Field(
        None, description="Secrets with the credentials of the image's registry."
    )
    port: Annotated[Int32, Field(ge=1024, le=65535)] = Field(
        8080, description="Port that the runtime listens on. The pods are not privileged, so it is 1024 or above."
    )
    resources: Resources = Field(
        DEFAULT_RESOURCES,
        description="CPU and memory of each pod. Default: requests of 100m and 256Mi, a limit of 1Gi of memory.",
    )
    env: Annotated[tuple[EnvVar, ...], Field(max_length=128), ListMap(("name",))] | None = Field(
        None,
        description="More environment variables for the runtime and the model sync, after those of the operator.",
    )
    env_from: Annotated[tuple[EnvFromSource, ...], Field(max_length=32)] | None = Field(
        None,
        description=(
            "ConfigMaps and Secrets whose keys become environment variables. "
            "Where a name is also set by the operator or by env, that one holds."
        ),
    )
    labels: Annotated[Labels, _NOT_OURS, label_keys("a label's key")] | None = Field(
        None, description="More labels for the pods, such as those that a mesh or a cost report reads."
    )
    annotations: Annotated[Annotations, _NOT_OURS, label_keys("an annotation's key")] | None = Field(
        None, description="More annotations for the pods."
    )
    node_selector: Annotated[Labels, label_keys("a label's key")] | None = Field(
        None, description="Labels that a node must have to run the pods."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = Field(
        None, description="Taints of nodes that the pods tolerate."
    )
    affinity: FreeObject | None = Field(
        None, description="Affinity of the pods to nodes and to other pods, as in a pod's spec.affinity."
    )
    topology_spread_constraints: (
        Annotated[
            tuple[TopologySpreadConstraint, ...], Field(max_length=8), ListMap(("topologyKey", "whenUnsatisfiable"))
        ]
        | None
    ) = Field(
        None,
        description=(
            "How the pods spread over nodes and zones. "
            "Default: evenly over nodes and over zones, as far as possible; an empty list turns that off."
        ),
    )
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of the pods.")
    termination_grace_period_seconds: Annotated[Int64, Field(ge=10, le=3600)] = Field(
        45,
        description=(
            "Seconds that a pod has to finish the messages it works on when it is stopped. "
            "The first 5 pass before the runtime is told, so that no new request still finds the pod."
        ),
    )
