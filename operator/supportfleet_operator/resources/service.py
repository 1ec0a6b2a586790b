"""The Service that an agent is reached through."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata, selector


def service(agent: SupportAgent) -> dict[str, Any]:
    """The Service; its name is the agent's."""
    wanted = agent.spec.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.agent_name(agent), annotations=wanted.annotations),
        "spec": {
            "type": wanted.type,
            "selector": selector(agent),
            "ports": [
                {
                    "name": names.HTTP_PORT,
                    "port": wanted.port,
                    "targetPort": names.HTTP_PORT,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
