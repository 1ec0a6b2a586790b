"""``spec``: what a user asks for."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.layers import (
    COMBINED,
    LAYERED,
    RULES_OF_LAYERS,
    TOOLS,
    WORKER,
    Layer,
    LayerName,
    Topology,
    names_tool_service,
)
from supportfleet_operator.api.model import Model
from supportfleet_operator.api.network import NetworkPolicy, Service
from supportfleet_operator.api.pod import FreeObject
from supportfleet_operator.api.rollout import Rollout
from supportfleet_operator.api.rules import Rule, matches
from supportfleet_operator.api.scaling import MAX_REPLICAS, Autoscaling, Availability
from supportfleet_operator.api.template import Template
from supportfleet_operator.api.traffic import ROUTED, Traffic
from supportfleet_operator.api.types import DataKey, HttpUrl, Int32, ObjectName

_ONE_POD_ONLY = (
    "more than one pod needs spec.database: without it each pod would keep conversations in an SQLite file of its own, "
    "and no other pod could continue them"
)


_BOTH_SERVE = ("Canary", "ABTest")


class ApiKeySecretRef(ApiModel):
    """The Secret with the API key."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    key: DataKey = Field("ANTHROPIC_API_KEY", description="Key within the Secret.")


class LLM(ApiModel):
    """The language model that answers what rules can't."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.provider != 'Anthropic' || has(self.apiKeySecretRef)",
            message="Anthropic needs an API key",
            check=lambda llm: llm.provider != "Anthropic" or llm.api_key_secret_ref is not None,
            field_path=".apiKeySecretRef",
            reason="FieldValueRequired",
        ),
    )

    provider: Literal["Auto", "Anthropic", "Scripted"] = Field(
        "Auto",
        description=(
            "Who answers. Anthropic: Claude. Scripted: fixed replies that say so, for trials without a key. "
            "Auto: Anthropic with an API key, else Scripted."
        ),
    )
    model: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=128),
            matches(r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$", "must be a model's name, with no spaces"),
        ]
        | None
    ) = Field(None, description="Name of the Claude model. Default: that of the runtime.")
    base_url: HttpUrl | None = Field(
        None, alias="baseURL", description="Address of the Messages API. Default: Anthropic's own."
    )
    api_key_secret_ref: ApiKeySecretRef | None = Field(None, description="API key of the provider.")
    timeout_seconds: Annotated[Int32, Field(ge=1, le=30)] = Field(
        20, description="Seconds that the provider has for a reply, retries included."
    )
    max_tokens: Annotated[Int32, Field(ge=1, le=64000)] = Field(1024, description="Longest reply, in tokens.")


class DatabaseSecretRef(ApiModel):
    """The Secret with the database's address."""

    name: ObjectName = Field(description="Name of the Secret, in the agent's namespace.")
    key: DataKey = Field(
        "DATABASE_URL",
        description="Key within the Secret whose value is postgresql://USER:PASSWORD@HOST:PORT/DATABASE.",
    )


class Database(ApiModel):
    """The database that conversations and the queue are kept in."""

    secret_ref: DatabaseSecretRef = Field(description="Address of the database, with its credentials.")


class SupportAgentSpec(ApiModel):
    """What the agent should be."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.database) || has(self.autoscaling) || self.replicas <= 1",
            message=_ONE_POD_ONLY,
            check=lambda spec: spec.database is not None or spec.autoscaling is not None or spec.replicas <= 1,
            field_path=".replicas",
        ),
        Rule(
            cel="has(self.database) || !has(self.autoscaling) || self.autoscaling.maxReplicas <= 1",
            message=_ONE_POD_ONLY,
            check=lambda spec: (
                spec.database is not None or spec.autoscaling is None or spec.autoscaling.max_replicas <= 1
            ),
            field_path=".autoscaling.maxReplicas",
        ),
        Rule(
            cel=(
                "!has(self.autoscaling) || "
                "(has(self.template.resources.requests) && 'cpu' in self.template.resources.requests) || "
                "(has(self.template.resources.limits) && 'cpu' in self.template.resources.limits)"
            ),
            message="must have cpu where spec.autoscaling is set: utilisation is measured against that request",
            check=lambda spec: (
                spec.autoscaling is None
                or "cpu" in {**(spec.template.resources.requests or {}), **(spec.template.resources.limits or {})}
            ),
            field_path=".template.resources.requests",
            reason="FieldValueRequired",
        ),
        Rule(
            cel=f"has(self.database) || !(self.rollout.strategy in {list(_BOTH_SERVE)})",
            message=(
                "Canary and ABTest need spec.database: two revisions serve at once, and without it each pod would keep "
                "conversations in an SQLite file of its own"
            ),
            check=lambda spec: spec.database is not None or spec.rollout.strategy not in _BOTH_SERVE,
            field_path=".rollout.strategy",
        ),
        Rule(
            cel=f"!has(self.rollout.match) || self.traffic.provider in {list(ROUTED)}",
            message="needs spec.traffic.provider Istio or GatewayAPI: nothing else can tell requests apart",
            check=lambda spec: spec.rollout.match is None or spec.traffic.provider in ROUTED,
            field_path=".rollout.match",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=(
                f"!has(self.rollout.steps) || self.traffic.provider in {list(ROUTED)} || "
                "!self.rollout.steps.exists(step, has(step.setMirror) && step.setMirror > 0)"
            ),
            message="setMirror needs spec.traffic.provider Istio or GatewayAPI: nothing else can copy requests",
            check=lambda spec: not spec.rollout.mirrors or spec.traffic.provider in ROUTED,
            field_path=".rollout.steps",
            reason="FieldValueForbidden",
        ),
        *RULES_OF_LAYERS,
    )

    replicas: Annotated[Int32, Field(ge=0, le=MAX_REPLICAS)] = Field(
        1,
        description=(
            "Pods to run. More than one needs spec.database. "
            "With spec.autoscaling only the first number of pods, kept between minReplicas and maxReplicas."
        ),
    )
    suspend: bool = Field(
        default=False,
        description="Stop all pods and the autoscaler, but keep everything else, until this is false again.",
    )
    template: Template = Field(description="The pods: image, resources, environment, placement.")
    config: FreeObject = Field(
        default={},
        description=("Configuration of the runtime, rendered as agent_config.json. A change is a new revision."),
    )
    llm: LLM = Field(LLM(), description="The language model that answers what rules can't.")
    database: Database | None = Field(
        None,
        description=(
            "The database for conversations and the queue. "
            "Default: an SQLite file in the pod, which is lost with it, and which allows one pod only."
        ),
    )
    model: Model | None = Field(
        None,
        description="The model that recognises what a customer wants. Default: none; a few keywords take its place.",
    )
    topology: Topology = Field(
        COMBINED,
        description=(
            "Who does the agent's work. Combined: every pod takes messages, answers them and carries out tools. "
            "Layered: these pods take messages alone; spec.worker has those that answer them and spec.tools those that "
            "carry out tools, each scaled by itself. Layered needs spec.database, and TOOLS_API_KEY."
        ),
    )
    worker: Layer | None = Field(
        None, description="The layer that answers messages, with topology Layered. Default: one pod."
    )
    tools: Layer | None = Field(
        None,
        description=(
            "The layer that carries out tools, with topology Layered. Default: one pod; "
            "none where spec.template.env sets TOOLS_URL, which names another tool service."
        ),
    )
    service: Service = Field(Service(), description="The Service that the agent is reached through.")
    autoscaling: Autoscaling | None = Field(
        None, description="Scale the number of pods with their load. Default: spec.replicas pods, always."
    )
    availability: Availability = Field(
        Availability(),
        description=(
            "How many pods a node drain may take at once. An agent that never has more than one pod gets no "
            "PodDisruptionBudget: it could only block drains."
        ),
    )
    network_policy: NetworkPolicy = Field(NetworkPolicy(), description="Whose traffic reaches the pods.")
    rollout: Rollout = Field(
        Rollout(),
        description=(
            "How a new revision takes over from the stable one. A revision is everything that changes behaviour: "
            "spec.template, spec.config, spec.llm, spec.database, spec.model, spec.topology and the layers' resources."
        ),
    )
    traffic: Traffic = Field(Traffic(), description="Who splits customers' traffic between revisions.")

    @property
    def is_layered(self) -> bool:
        """Whether the agent's work is divided among layers."""
        return self.topology == LAYERED

    @property
    def layers(self) -> Mapping[LayerName, Layer]:
        """The layers behind the gateway; none where each pod does it all."""
        if not self.is_layered:
            return {}
        worker: Mapping[LayerName, Layer] = {WORKER: self.worker or Layer()}
        return worker if names_tool_service(self) else {TOOLS: self.tools or Layer(), **worker}

    @property
    def first_pods(self) -> int:
        """Pods to start with; from then on the autoscaler's number holds where there is one."""
        if self.suspend:
            return 0
        if self.autoscaling is None:
            return self.replicas
        return self.autoscaling.bounded(self.replicas)

    @property
    def max_pods(self) -> int:
        """The most pods that the agent can have."""
        if self.suspend:
            return 0
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas
