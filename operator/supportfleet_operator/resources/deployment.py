"""The Deployments of one revision of an agent: one, or where it has layers one for each."""

from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.api.base import without_empty_lists
from supportfleet_operator.api.pod import TopologySpreadConstraint
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import artifact_of, env_from
from supportfleet_operator.resources.labels import MODEL_DIGEST, labels, metadata, selector
from supportfleet_operator.resources.pods import (
    CONFIG_MOUNT,
    CONFIG_VOLUME,
    DATA_MOUNT,
    DATA_VOLUME,
    MODELS_MOUNT,
    POINTER_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    Mount,
    Volume,
    container_security,
    empty_dir,
    keeps_claim,
    models_volume,
    pod_basics,
    pointer_volume,
    sync_container,
)
from supportfleet_operator.resources.roles import Role, reached

DRAIN_SECONDS: Final = 5
"""How long a stopping pod goes on as before, so that kube-proxy and gateways everywhere have forgotten it by then."""

SPREAD_OVER: Final = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")

REVISION_HISTORY: Final = 3


def deployment(agent: SupportAgent, revision: str, replicas: int | None, role: Role | None = None) -> dict[str, Any]:
    """The Deployment of the pods that customers reach, or of another role. An autoscaler's replicas are left out.

    Its pods are replaced only where a newer operator renders them in another way. A new pod is ready before an old one
    goes, so even that costs no capacity.
    """
    role = role or reached(agent)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector(agent, revision, role.component)},
        "revisionHistoryLimit": REVISION_HISTORY,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": _pod(agent, revision, role),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(agent, role.name(agent, revision), role.component, revision=revision),
        "spec": spec,
    }


def _pod(agent: SupportAgent, revision: str, role: Role) -> dict[str, Any]:
    template = agent.spec.template
    annotations = dict(template.annotations or {})
    model = agent.spec.model if role.loads_model else None
    if model is not None and not model.hot:
        annotations[MODEL_DIGEST] = artifact_of(agent).digest
    spec = {**pod_basics(agent), "terminationGracePeriodSeconds": template.termination_grace_period_seconds}
    if model is not None and not model.hot and not keeps_claim(agent):
        spec["initContainers"] = [sync_container(agent, role.resources(agent).manifest())]
    spec["containers"] = [_agent_container(agent, revision, role)]
    spec["volumes"] = _volumes(agent, revision, role)
    if affinity := without_empty_lists(template.affinity or {}):
        spec["affinity"] = affinity
    if constraints := _spread(agent, revision, role):
        spec["topologySpreadConstraints"] = constraints
    meta: dict[str, Any] = {"labels": {**(template.labels or {}), **labels(agent, role.component, revision)}}
    if annotations:
        meta["annotations"] = annotations
    return {"metadata": meta, "spec": spec}


def _agent_container(agent: SupportAgent, revision: str, role: Role) -> dict[str, Any]:
    template = agent.spec.template
    container: dict[str, Any] = {
        "name": names.AGENT_CONTAINER,
        "image": template.image,
        "imagePullPolicy": template.image_pull_policy,
        "args": [role.command],
        "ports": [{"name": names.HTTP_PORT, "containerPort": template.port, "protocol": "TCP"}],
        "env": role.env(agent, revision),
    }
    if sources := env_from(agent):
        container["envFrom"] = sources
    return container | {
        "resources": role.resources(agent).manifest(),
        "startupProbe": _probe("/healthz", period=1, timeout=2, failures=120),
        "readinessProbe": _probe("/readyz", period=2, timeout=2, failures=3),
        "livenessProbe": _probe("/healthz", period=10, timeout=5, failures=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(agent, role),
    }


def _probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": names.HTTP_PORT},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _mounts(agent: SupportAgent, role: Role) -> list[Mount]:
    mounts = [dict(CONFIG_MOUNT), dict(TMP_MOUNT), dict(DATA_MOUNT)]
    if agent.spec.model is not None and role.loads_model:
        mounts.append({**MODELS_MOUNT, "readOnly": True} if keeps_claim(agent) else dict(MODELS_MOUNT))
        mounts += [dict(POINTER_MOUNT)] if agent.spec.model.hot else []
    return mounts


def _volumes(agent: SupportAgent, revision: str, role: Role) -> list[Volume]:
    volumes = [
        {"name": CONFIG_VOLUME, "configMap": {"name": names.config_map(agent, revision)}},
        empty_dir(TMP_VOLUME),
        empty_dir(DATA_VOLUME),
    ]
    if agent.spec.model is not None and role.loads_model:
        volumes.append(models_volume(agent))
        volumes += [pointer_volume(agent)] if agent.spec.model.hot else []
    return volumes


def _spread(agent: SupportAgent, revision: str, role: Role) -> list[dict[str, Any]]:
    """Users' constraints, or evenly over nodes and zones as far as that is possible; the revision's pods are counted.

    Were those of other revisions counted too, the pods that stay after a promotion could all be on one node.
    """
    wanted = agent.spec.template.topology_spread_constraints
    if wanted is None:
        wanted = tuple(
            TopologySpreadConstraint(max_skew=1, topology_key=key, when_unsatisfiable="ScheduleAnyway")
            for key in SPREAD_OVER
        )
    own = {"labelSelector": {"matchLabels": selector(agent, revision, role.component)}}
    return [own | constraint.manifest() for constraint in wanted]
