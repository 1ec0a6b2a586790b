"""The ConfigMap with the runtime's configuration."""

import json
from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata


def config_map(agent: SupportAgent) -> dict[str, Any]:
    """``spec.config`` as agent_config.json."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(agent, names.config_map(agent)),
        "data": {names.CONFIG_FILE: config_json(agent)},
    }


def config_json(agent: SupportAgent) -> str:
    """The file itself: the same text for the same configuration."""
    return json.dumps(agent.spec.config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def config_hash(agent: SupportAgent) -> str:
    """What changes whenever the configuration does."""
    return names.fingerprint(agent.spec.config)
