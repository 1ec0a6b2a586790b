"""What the agent's pods and the sync Job's have in common: security, volumes, the sync container.

Every pod passes Pod Security's ``restricted`` level and runs on a read-only root filesystem.
"""

from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.api.model import CLAIM
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import CONFIG_DIR, MODEL_DIR, POINTER_DIR, env_from, sync_env

NON_ROOT: Final = 65532
"""User and group of the images."""

DATA_DIR: Final = "/var/lib/supportfleet"

CONFIG_VOLUME: Final = "config"
DATA_VOLUME: Final = "data"
MODELS_VOLUME: Final = "models"
POINTER_VOLUME: Final = "model-pointer"
TMP_VOLUME: Final = "tmp"

Mount = dict[str, Any]
Volume = dict[str, Any]

TMP_MOUNT: Final[Mount] = {"name": TMP_VOLUME, "mountPath": "/tmp"}  # noqa: S108 - the container's own, an emptyDir
MODELS_MOUNT: Final[Mount] = {"name": MODELS_VOLUME, "mountPath": MODEL_DIR}
POINTER_MOUNT: Final[Mount] = {"name": POINTER_VOLUME, "mountPath": POINTER_DIR, "readOnly": True}
CONFIG_MOUNT: Final[Mount] = {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIR, "readOnly": True}
DATA_MOUNT: Final[Mount] = {"name": DATA_VOLUME, "mountPath": DATA_DIR}


def pod_security() -> dict[str, Any]:
    """Security of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": NON_ROOT,
        "runAsGroup": NON_ROOT,
        "fsGroup": NON_ROOT,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Security of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def pod_basics(agent: SupportAgent) -> dict[str, Any]:
    """The fields of a pod's spec that every pod of the agent has, and users' choice of nodes.

    No service links: a Service called ``api`` would put an API_PORT of its own into the environment.
    """
    template = agent.spec.template
    spec: dict[str, Any] = {
        "serviceAccountName": names.agent_name(agent),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = [secret.manifest() for secret in template.image_pull_secrets]
    if template.node_selector:
        spec["nodeSelector"] = dict(template.node_selector)
    if template.tolerations:
        spec["tolerations"] = [toleration.manifest() for toleration in template.tolerations]
    if template.priority_class_name:
        spec["priorityClassName"] = template.priority_class_name
    return spec


def sync_container(agent: SupportAgent, resources: dict[str, Any], *flags: str) -> dict[str, Any]:
    """The container that fetches and verifies the model."""
    return task_container(
        agent,
        names.SYNC_CONTAINER,
        args=["sync-model", *flags],
        env=sync_env(agent),
        resources=resources,
        mounts=[dict(MODELS_MOUNT)],
    )


def task_container(
    agent: SupportAgent,
    name: str,
    *,
    args: list[str],
    env: list[dict[str, Any]],
    resources: dict[str, Any],
    mounts: list[Mount],
) -> dict[str, Any]:
    """A container that runs one command of the runtime. Its last word is a line of JSON that says why it failed."""
    template = agent.spec.template
    container: dict[str, Any] = {
        "name": name,
        "image": template.image,
        "imagePullPolicy": template.image_pull_policy,
        "args": args,
        "env": env,
    }
    if sources := env_from(agent):
        container["envFrom"] = sources
    return container | {
        "resources": resources,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [dict(TMP_MOUNT), *mounts],
    }


def keeps_claim(agent: SupportAgent) -> bool:
    """Whether models are kept on a claim, the agent's own or one that it was given."""
    return agent.spec.model is not None and agent.spec.model.cache.type == CLAIM


def empty_dir(name: str, size: int | str | None = None) -> Volume:
    """A volume as long-lived as its pod."""
    return {"name": name, "emptyDir": {} if size is None else {"sizeLimit": size}}


def models_volume(agent: SupportAgent) -> Volume:
    """The volume that models are kept on."""
    if agent.spec.model is None:
        raise ValueError(f"{agent.metadata.name} has no model to keep")
    cache = agent.spec.model.cache
    if not keeps_claim(agent):
        return empty_dir(MODELS_VOLUME, cache.size)
    claim = cache.claim_name or names.model_claim(agent)
    return {"name": MODELS_VOLUME, "persistentVolumeClaim": {"claimName": claim}}


def pointer_volume(agent: SupportAgent) -> Volume:
    """The volume with the file that says which model to load."""
    return {"name": POINTER_VOLUME, "configMap": {"name": names.model_pointer(agent)}}
