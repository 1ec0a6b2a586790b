"""The autoscaler of one revision of an agent: it scales that revision's Deployment, and can't see any other."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata


def autoscaler(agent: SupportAgent, revision: str, min_replicas: int) -> dict[str, Any]:
    """The HorizontalPodAutoscaler, from as many pods as the revision's traffic needs now.

    ``targetQueueDepth`` is not rendered: a metric that nobody serves would stop the autoscaler from scaling down.
    """
    wanted = agent.spec.autoscaling
    if wanted is None:
        raise ValueError(f"{agent.metadata.name} has no autoscaling to render")
    name = names.of_revision(agent, revision)
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
        "metadata": metadata(agent, name, revision=revision),
        "spec": spec,
    }
