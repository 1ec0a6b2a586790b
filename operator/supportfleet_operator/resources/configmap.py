"""The ConfigMap with the runtime's configuration."""

import json
import re
from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata

NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def config_map(agent: SupportAgent, revision: str) -> dict[str, Any]:
    """``spec.config`` as agent_config.json. It never changes: another configuration is another revision."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(agent, names.config_map(agent, revision), revision=revision),
        "immutable": True,
        "data": {names.CONFIG_FILE: config_json(agent)},
    }


def config_json(agent: SupportAgent) -> str:
    """The file itself: the same text for the same configuration.

    Characters that YAML can't hold, or takes for line breaks, are escaped: the API server reads what is applied to it
    as YAML, even where it is sent as JSON.
    """
    text = json.dumps(agent.spec.config, indent=2, sort_keys=True, ensure_ascii=False)
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n"
