"""The autoscalers of one revision of an agent: each scales one of that revision's Deployments, and sees no other."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.api.scaling import Autoscaling
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.roles import Role


def autoscaler(
    agent: SupportAgent, revision: str, wanted: Autoscaling, min_replicas: int, role: Role
) -> dict[str, Any]:
    """The HorizontalPodAutoscaler, from as many pods as the revision's traffic needs now.

    ``targetQueueDepth`` is not rendered: a metric that nobody serves would stop the autoscaler from scaling down.
    """
    name = role.name(agent, revision)
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": min_replicas,
        "maxReplicas": wanted.max_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": wanted.target_cpu_utilization_percentage},
                },
            }
        ],
    }
    if wanted.behavior is not None:
        spec["behavior"] = wanted.behavior.manifest()
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(agent, name, role.component, revision=revision),
        "spec": spec,
    }
