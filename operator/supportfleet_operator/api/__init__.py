"""The SupportAgent API: pydantic models, the source of the CRD, of its reference and of what the operator reads."""

from supportfleet_operator.api.agent import InvalidSupportAgentError, Metadata, Problem, SupportAgent, parse
from supportfleet_operator.api.analysis import PLACEHOLDERS, Analysis, AnalysisMetric, MetricName, Prometheus
from supportfleet_operator.api.checklist import Checklist
from supportfleet_operator.api.group import API_VERSION, CRD_NAME, GROUP, KIND, PLURAL, VERSION
from supportfleet_operator.api.model import Artifact, Model
from supportfleet_operator.api.rollout import HeaderMatch, Pause, Rollout, Step, StringMatch
from supportfleet_operator.api.spec import SupportAgentSpec
from supportfleet_operator.api.status import (
    ACCEPTED,
    MODEL_SYNCED,
    PROGRESSING,
    READY,
    RECONCILING,
    SCALING_ACTIVE,
    STALLED,
    TRAFFIC_ROUTED,
    AnalysisOutcome,
    Condition,
    ModelStatus,
    Phase,
    RolloutPhase,
    RolloutStatus,
    SupportAgentStatus,
    Verdict,
)
from supportfleet_operator.api.traffic import GATEWAY_API, ISTIO, ROUTED, Provider, Stickiness, Traffic

__all__ = [
    "ACCEPTED",
    "API_VERSION",
    "CRD_NAME",
    "GATEWAY_API",
    "GROUP",
    "ISTIO",
    "KIND",
    "MODEL_SYNCED",
    "PLACEHOLDERS",
    "PLURAL",
    "PROGRESSING",
    "READY",
    "RECONCILING",
    "ROUTED",
    "SCALING_ACTIVE",
    "STALLED",
    "TRAFFIC_ROUTED",
    "VERSION",
    "Analysis",
    "AnalysisMetric",
    "AnalysisOutcome",
    "Artifact",
    "Checklist",
    "Condition",
    "HeaderMatch",
    "InvalidSupportAgentError",
    "Metadata",
    "MetricName",
    "Model",
    "ModelStatus",
    "Pause",
    "Phase",
    "Problem",
    "Prometheus",
    "Provider",
    "Rollout",
    "RolloutPhase",
    "RolloutStatus",
    "Step",
    "Stickiness",
    "StringMatch",
    "SupportAgent",
    "SupportAgentSpec",
    "SupportAgentStatus",
    "Traffic",
    "Verdict",
    "parse",
]
