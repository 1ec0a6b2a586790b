"""The Services of an agent: one that it is reached through, and for each revision one that routes name.

Where a revision has a tools layer, that has one too.
"""

from typing import Any

from supportfleet_operator.api import TOOLS, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import TOOLS_SERVICE_PORT
from supportfleet_operator.resources.labels import metadata, selector


def service(agent: SupportAgent, revision: str | None) -> dict[str, Any]:
    """The Service that the agent is reached through; its pods are those of one revision, or all."""
    wanted = agent.spec.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.agent_name(agent), annotations=wanted.annotations),
        "spec": _spec(wanted.type, wanted.port, selector(agent, revision)),
    }


def revision_service(agent: SupportAgent, revision: str) -> dict[str, Any]:
    """The Service of one revision's pods, within the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.of_revision(agent, revision), revision=revision),
        "spec": _spec("ClusterIP", agent.spec.service.port, selector(agent, revision)),
    }


def tools_service(agent: SupportAgent, revision: str) -> dict[str, Any]:
    """The Service by which a revision's pods reach its tools layer."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.of_layer(agent, revision, TOOLS), TOOLS, revision=revision),
        "spec": _spec("ClusterIP", TOOLS_SERVICE_PORT, selector(agent, revision, TOOLS)),
    }


def _spec(kind: str, port: int, pods: dict[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "selector": pods,
        "ports": [
            {
                "name": names.HTTP_PORT,
                "port": port,
                "targetPort": names.HTTP_PORT,
                "protocol": "TCP",
                "appProtocol": "http",
            }
        ],
    }
