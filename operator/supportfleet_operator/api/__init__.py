"""The SupportAgent API: pydantic models, the source of the CRD, of its reference and of what the operator reads."""

from supportfleet_operator.api.agent import InvalidSupportAgentError, Metadata, Problem, SupportAgent, parse
from supportfleet_operator.api.group import API_VERSION, CRD_NAME, GROUP, KIND, PLURAL, VERSION
from supportfleet_operator.api.spec import SupportAgentSpec
from supportfleet_operator.api.status import (
    ACCEPTED,
    MODEL_SYNCED,
    READY,
    RECONCILING,
    SCALING_ACTIVE,
    STALLED,
    Condition,
    ModelStatus,
    Phase,
    SupportAgentStatus,
)

__all__ = [
    "ACCEPTED",
    "API_VERSION",
    "CRD_NAME",
    "GROUP",
    "KIND",
    "MODEL_SYNCED",
    "PLURAL",
    "READY",
    "RECONCILING",
    "SCALING_ACTIVE",
    "STALLED",
    "VERSION",
    "Condition",
    "InvalidSupportAgentError",
    "Metadata",
    "ModelStatus",
    "Phase",
    "Problem",
    "SupportAgent",
    "SupportAgentSpec",
    "SupportAgentStatus",
    "parse",
]
