"""The ServiceAccount of an agent's pods."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata


def service_account(agent: SupportAgent) -> dict[str, Any]:
    """An identity of its own with no rights and no token: the runtime never talks to the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(agent, names.agent_name(agent)),
        "automountServiceAccountToken": False,
    }
