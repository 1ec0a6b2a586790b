"""``spec.topology``, ``spec.worker`` and ``spec.tools``: an agent's work in one Deployment, or in layers."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.pod import Resources
from supportfleet_operator.api.rules import Rule, only_where
from supportfleet_operator.api.scaling import MAX_REPLICAS, Autoscaling
from supportfleet_operator.api.types import Int32

Topology = Literal["Combined", "Layered"]
COMBINED: Final = "Combined"
LAYERED: Final = "Layered"

LayerName = Literal["worker", "tools"]
WORKER: Final = "worker"
"""Pods that answer the messages that gateways take."""
TOOLS: Final = "tools"
"""Pods that carry out the tools that workers call."""
LAYERS: Final[tuple[LayerName, ...]] = (WORKER, TOOLS)

TOOLS_URL: Final = "TOOLS_URL"
"""Variable that names a tool service: with one of the user's own there is no tools layer."""
TOOLS_API_KEY: Final = "TOOLS_API_KEY"
"""Variable with the key by which the tools layer knows workers; from a Secret of the user's."""
TOOLS_PORT: Final = "TOOLS_PORT"


class Layer(ApiModel):
    """A layer of the agent: pods that are scaled by themselves."""

    replicas: Annotated[Int32, Field(ge=1, le=MAX_REPLICAS)] = Field(
        1,
        description=(
            "Pods of the layer. With autoscaling only the first number of pods, kept between minReplicas and "
            "maxReplicas. A canary has its share of them, one at least."
        ),
    )
    resources: Resources | None = Field(
        None, description="CPU and memory of each pod of the layer. Default: spec.template.resources."
    )
    autoscaling: Autoscaling | None = Field(
        None, description="Scale the layer with its load. Default: replicas pods, always."
    )

    @property
    def least(self) -> int:
        """Pods that the layer has at least."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas

    @property
    def first(self) -> int:
        """Pods to start with."""
        return self.autoscaling.bounded(self.replicas) if self.autoscaling else self.replicas

    @property
    def most(self) -> int:
        """The most pods that the layer can have."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas


def _measured(name: LayerName) -> Rule:
    """The rule that a layer's autoscaler has a request to measure against."""
    own, shared = f"self.{name}.resources", "self.template.resources"

    def has_cpu(of: str) -> str:
        return " || ".join(f"(has({of}.{kind}) && 'cpu' in {of}.{kind})" for kind in ("requests", "limits"))

    def check(spec: Any) -> bool:
        layer = getattr(spec, name)
        if layer is None or layer.autoscaling is None:
            return True
        resources = layer.resources or spec.template.resources
        return "cpu" in {**(resources.requests or {}), **(resources.limits or {})}

    return Rule(
        cel=(
            f"!has(self.{name}) || !has(self.{name}.autoscaling) || "
            f"(has({own}) ? ({has_cpu(own)}) : ({has_cpu(shared)}))"
        ),
        message=(
            f"needs cpu in spec.{name}.resources.requests, or without spec.{name}.resources in those of spec.template: "
            "utilisation is measured against that request"
        ),
        check=check,
        field_path=f".{name}.autoscaling",
        reason="FieldValueRequired",
    )


def _depth_elsewhere(cel: str, path: str, check: Any) -> Rule:
    """The rule that the queue's depth scales those who work it."""
    return Rule(
        cel=cel,
        message="belongs to spec.worker.autoscaling where topology is Layered: workers are who empties the queue",
        check=check,
        field_path=f"{path}.targetQueueDepth",
        reason="FieldValueForbidden",
    )


def _named(spec: Any) -> set[str]:
    """Names of the variables that users set themselves."""
    return {variable.name for variable in spec.template.env or ()}


def names_tool_service(spec: Any) -> bool:
    """Whether the spec names a tool service of its own."""
    return TOOLS_URL in _named(spec)


_COMBINED: Final = f"self.topology != '{LAYERED}'"


def _combined(spec: Any) -> bool:
    return bool(spec.topology == COMBINED)


RULES_OF_LAYERS: Final[tuple[Rule, ...]] = (
    only_where(WORKER, "topology", LAYERED),
    only_where(TOOLS, "topology", LAYERED),
    Rule(
        cel=f"{_COMBINED} || has(self.database)",
        message=(
            "topology Layered needs a database: gateways and workers are pods of their own, and it keeps the messages "
            "that are between them"
        ),
        check=lambda spec: _combined(spec) or spec.database is not None,
        field_path=".database",
        reason="FieldValueRequired",
    ),
    Rule(
        cel=(
            f"{_COMBINED} || (has(self.template.envFrom) && self.template.envFrom.size() > 0) || "
            "(has(self.template.env) && "
            f"self.template.env.exists(one, one.name in ['{TOOLS_API_KEY}', '{TOOLS_URL}']))"
        ),
        message=(
            f"topology Layered needs {TOOLS_API_KEY}, from a Secret by env or envFrom: workers call the tools layer "
            f"with it; or {TOOLS_URL}, for a tool service of your own"
        ),
        check=lambda spec: (
            _combined(spec) or bool(spec.template.env_from) or bool(_named(spec) & {TOOLS_API_KEY, TOOLS_URL})
        ),
        field_path=".template.env",
        reason="FieldValueRequired",
    ),
    Rule(
        cel=f"{_COMBINED} || !has(self.template.env) || !self.template.env.exists(one, one.name == '{TOOLS_PORT}')",
        message=f"{TOOLS_PORT} is set by the operator from spec.template.port where topology is Layered",
        check=lambda spec: _combined(spec) or TOOLS_PORT not in _named(spec),
        field_path=".template.env",
        reason="FieldValueForbidden",
    ),
    Rule(
        cel=(
            f"{_COMBINED} || !has(self.rollout.steps) || "
            "!self.rollout.steps.exists(step, has(step.setMirror) && step.setMirror > 0)"
        ),
        message="setMirror needs topology Combined: copies of messages are answered where messages are worked",
        check=lambda spec: _combined(spec) or not spec.rollout.mirrors,
        field_path=".rollout.steps",
        reason="FieldValueForbidden",
    ),
    _depth_elsewhere(
        f"{_COMBINED} || !has(self.autoscaling) || !has(self.autoscaling.targetQueueDepth)",
        ".autoscaling",
        lambda spec: _combined(spec) or spec.autoscaling is None or spec.autoscaling.target_queue_depth is None,
    ),
    _depth_elsewhere(
        "!has(self.tools) || !has(self.tools.autoscaling) || !has(self.tools.autoscaling.targetQueueDepth)",
        ".tools.autoscaling",
        lambda spec: (
            spec.tools is None or spec.tools.autoscaling is None or spec.tools.autoscaling.target_queue_depth is None
        ),
    ),
    _measured(WORKER),
    _measured(TOOLS),
)
"""Rules of the whole spec that are about layers."""
