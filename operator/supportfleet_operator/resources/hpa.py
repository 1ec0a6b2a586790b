"""The autoscaler of an agent."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata


def autoscaler(agent: SupportAgent) -> dict[str, Any] | None:
    """The HorizontalPodAutoscaler; none without ``spec.autoscaling`` and none for a suspended agent.

    ``targetQueueDepth`` is not rendered: a metric that nobody serves would stop the autoscaler from scaling down.
    """
    wanted = agent.spec.autoscaling
    if wanted is None or agent.spec.suspend:
        return None
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.agent_name(agent)},
        "minReplicas": wanted.min_replicas,
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
        "metadata": metadata(agent, names.agent_name(agent)),
        "spec": spec,
    }
