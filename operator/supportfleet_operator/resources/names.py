"""Names of children: the agent's own, with what sets them apart after it. They never hold anything random."""

import hashlib
import json
from typing import Any, Final

from supportfleet_operator.api import LayerName, SupportAgent

AGENT_CONTAINER: Final = "agent"
SYNC_CONTAINER: Final = "sync-model"
"""The init container of the agent's pods, and the container of the sync Job."""
CHANNEL_CONTAINER: Final = "resolve-channel"
CHECKLIST_CONTAINER: Final = "checklist"
HTTP_PORT: Final = "http"
CONFIG_FILE: Final = "agent_config.json"
MODEL_FILE: Final = "model.json"

HASH_LENGTH: Final = 10
REVISION_LENGTH: Final = 8
TRY_LENGTH: Final = 6


def agent_name(agent: SupportAgent) -> str:
    """Name of what all revisions share: Service, ServiceAccount, disruption budget, network policy, routes."""
    return agent.metadata.name


def of_revision(agent: SupportAgent, revision: str) -> str:
    """Name of a revision's Deployment, Services, autoscaler, DestinationRule and ControllerRevision."""
    return f"{agent.metadata.name}-{revision}"


def of_layer(agent: SupportAgent, revision: str, layer: LayerName) -> str:
    """Name of what a layer of a revision has: Deployment, Service, autoscaler, disruption budget, network policy."""
    return f"{of_revision(agent, revision)}-{layer}"


def config_map(agent: SupportAgent, revision: str) -> str:
    """Name of the ConfigMap with a revision's agent_config.json."""
    return f"{of_revision(agent, revision)}-config"


def model_claim(agent: SupportAgent) -> str:
    """Name of the claim that keeps models, where the agent has one of its own."""
    return f"{agent.metadata.name}-models"


def model_pointer(agent: SupportAgent) -> str:
    """Name of the ConfigMap that tells pods which model to load, where it reloads hot."""
    return f"{agent.metadata.name}-model"


def channel_job(agent: SupportAgent, number: int) -> str:
    """Name of the Job that asks for the nth time where the agent's channel points."""
    return f"{agent.metadata.name}-channel-{number}"


def model_job(agent: SupportAgent, spec: dict[str, Any]) -> str:
    """Name of the Job with this spec: Jobs are immutable, so another spec is another Job."""
    return f"{agent.metadata.name}-model-{fingerprint(spec)[:HASH_LENGTH]}"


def checklist_job(agent: SupportAgent, revision: str, identity: Any) -> str:
    """Name of the Job that checks a revision; another try, and a try with other checks, is another Job."""
    return f"{of_revision(agent, revision)}-check-{fingerprint(identity)[:TRY_LENGTH]}"


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
