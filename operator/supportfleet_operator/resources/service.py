"""The Services of an agent: one that it is reached through, and one for each revision, which routes name."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata, selector


def service(agent: SupportAgent, revision: str | None) -> dict[str, Any]:
    """The Service that the agent is reached through; its pods are those of one revision, or all."""
    wanted = agent.spec.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.agent_name(agent), annotations=wanted.annotations),
        "spec": _spec(agent, wanted.type, selector(agent, revision)),
    }


def revision_service(agent: SupportAgent, revision: str) -> dict[str, Any]:
    """The Service of one revision's pods, within the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(agent, names.of_revision(agent, revision), revision=revision),
        "spec": _spec(agent, "ClusterIP", selector(agent, revision)),
    }


def _spec(agent: SupportAgent, kind: str, pods: dict[str, str]) -> dict[str, Any]:
    return {
        "type": kind,
        "selector": pods,
        "ports": [
            {
                "name": names.HTTP_PORT,
                "port": agent.spec.service.port,
                "targetPort": names.HTTP_PORT,
                "protocol": "TCP",
                "appProtocol": "http",
            }
        ],
    }
