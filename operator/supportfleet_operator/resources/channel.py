"""Channels: a model that is named by a pointer in the bucket.

A Job asks the bucket where the channel points, since only pods have its credentials and may reach it. Its answer is
kept in ``status.model``, and from then on the agent is rendered as if its spec had named that version.
"""

from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import channel_env
from supportfleet_operator.resources.labels import labels, metadata
from supportfleet_operator.resources.pods import (
    MODELS_MOUNT,
    TMP_VOLUME,
    empty_dir,
    keeps_claim,
    models_volume,
    pod_basics,
    task_container,
)

DEADLINE_SECONDS: Final = 60
RESOURCES: Final = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def resolved(agent: SupportAgent, version: str, digest: str) -> SupportAgent:
    """The agent as if its spec named what its channel points at; the same where it follows none."""
    model = agent.spec.model
    if model is None or model.channel is None:
        return agent
    named = model.model_copy(update={"channel": None, "version": version, "digest": digest})
    return agent.model_copy(update={"spec": agent.spec.model_copy(update={"model": named})})


def channel_job(agent: SupportAgent, number: int) -> dict[str, Any]:
    """The Job that asks where the agent's channel points; ``number`` counts how often was asked.

    It is tried once: the next look is the next try. Its last word is a line of JSON, as the model sync's is.
    """
    model = agent.spec.model
    if model is None or model.channel is None:
        raise ValueError(f"{agent.metadata.name} follows no channel")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(agent, names.channel_job(agent, number), "model-channel"),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "template": {
                "metadata": {"labels": labels(agent, "model-channel")},
                "spec": {
                    **pod_basics(agent),
                    "restartPolicy": "Never",
                    "containers": [_container(agent)],
                    "volumes": [empty_dir(TMP_VOLUME), *([models_volume(agent)] if keeps_claim(agent) else [])],
                },
            },
        },
    }


def _container(agent: SupportAgent) -> dict[str, Any]:
    """A pointer can lie on the claim, as models can."""
    return task_container(
        agent,
        names.CHANNEL_CONTAINER,
        args=["resolve-channel"],
        env=channel_env(agent),
        resources={name: dict(values) for name, values in RESOURCES.items()},
        mounts=[{**MODELS_MOUNT, "readOnly": True}] if keeps_claim(agent) else [],
    )
