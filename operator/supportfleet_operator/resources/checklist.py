"""The Job that makes the checks of ``spec.rollout.checklist`` on a revision whose pods run and have no traffic yet.

It has the revision's image, environment and configuration, and asks its pods through the revision's own Service. What
failed is a verdict, and ends it; what could not be checked is tried again. It has no TTL: it goes with the rollout, and
one that failed stays for its log until the spec changes.
"""

from typing import Any, Final

from supportfleet_operator.api import Checklist, SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import agent_env
from supportfleet_operator.resources.labels import labels, metadata
from supportfleet_operator.resources.pods import (
    CONFIG_MOUNT,
    CONFIG_VOLUME,
    POINTER_MOUNT,
    TMP_VOLUME,
    Mount,
    Volume,
    empty_dir,
    pod_basics,
    pointer_volume,
    task_container,
)

RETRIES: Final = 6
FAILED: Final = 1
"""Exit code of ``checklist`` for a check that failed; any other than 0 means that something could not be checked."""
RESOURCES: Final = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}

DOCUMENTS_VOLUME: Final = "checklist-documents"
DOCUMENTS_DIR: Final = "/etc/supportfleet-checklist"
DOCUMENTS: Final = (
    ("ALERT_RULES", f"{DOCUMENTS_DIR}/agent.rules.yaml"),
    ("RUNBOOKS", DOCUMENTS_DIR),
    ("ONCALL_ATTESTATION", f"{DOCUMENTS_DIR}/oncall.yaml"),
)
KEY_VOLUME: Final = "checklist-key"
KEY_DIR: Final = "/etc/supportfleet-checklist-key"
KEY_FILE: Final = "api-key"
READABLE: Final = 0o440


def checklist_job(agent: SupportAgent, revision: str, begun: str) -> dict[str, Any] | None:
    """The Job for a revision (``at_revision``) whose rollout began then; none where the spec asks for no checklist."""
    wanted = agent.spec.rollout.checklist
    if wanted is None:
        return None
    spec = _spec(agent, revision, wanted)
    name = names.checklist_job(agent, revision, {"begun": begun, "spec": spec})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(agent, name, "checklist", revision=revision),
        "spec": spec,
    }


def _spec(agent: SupportAgent, revision: str, wanted: Checklist) -> dict[str, Any]:
    verdict = {"containerName": names.CHECKLIST_CONTAINER, "operator": "In", "values": [FAILED]}
    return {
        "backoffLimit": RETRIES,
        "activeDeadlineSeconds": wanted.timeout_seconds * (RETRIES + 1),
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": verdict},
                # A pod that its node lost was not at fault, and costs no try.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {
            "metadata": {"labels": labels(agent, "checklist", revision)},
            "spec": {
                **pod_basics(agent),
                "activeDeadlineSeconds": wanted.timeout_seconds,
                "restartPolicy": "Never",
                "containers": [_container(agent, revision, wanted)],
                "volumes": _volumes(agent, revision, wanted),
            },
        },
    }


def _container(agent: SupportAgent, revision: str, wanted: Checklist) -> dict[str, Any]:
    url = f"http://{names.of_revision(agent, revision)}:{agent.spec.service.port}"
    args = ["checklist", "--url", url]
    for name in wanted.left_out(has_database=agent.spec.database is not None):
        args += ["--skip", name]
    if wanted.api_key_secret_ref is not None:
        args += ["--api-key-file", f"{KEY_DIR}/{KEY_FILE}"]
    return task_container(
        agent,
        names.CHECKLIST_CONTAINER,
        args=args,
        env=_env(agent, revision, wanted),
        resources={name: dict(values) for name, values in RESOURCES.items()},
        mounts=_mounts(agent, wanted),
    )


def _env(agent: SupportAgent, revision: str, wanted: Checklist) -> list[dict[str, Any]]:
    """The agent's own variables, and where the documents are, unless those say so themselves."""
    own = agent_env(agent, revision)
    known = {one["name"] for one in own}
    documents = DOCUMENTS if wanted.config_map_name else ()
    return [*({"name": name, "value": value} for name, value in documents if name not in known), *own]


def _mounts(agent: SupportAgent, wanted: Checklist) -> list[Mount]:
    mounts = [dict(CONFIG_MOUNT)]
    if agent.spec.model is not None and agent.spec.model.hot:
        mounts.append(dict(POINTER_MOUNT))
    if wanted.config_map_name:
        mounts.append({"name": DOCUMENTS_VOLUME, "mountPath": DOCUMENTS_DIR, "readOnly": True})
    if wanted.api_key_secret_ref is not None:
        mounts.append({"name": KEY_VOLUME, "mountPath": KEY_DIR, "readOnly": True})
    return mounts


def _volumes(agent: SupportAgent, revision: str, wanted: Checklist) -> list[Volume]:
    volumes = [
        {"name": CONFIG_VOLUME, "configMap": {"name": names.config_map(agent, revision)}},
        empty_dir(TMP_VOLUME),
    ]
    if agent.spec.model is not None and agent.spec.model.hot:
        volumes.append(pointer_volume(agent))
    if wanted.config_map_name:
        volumes.append({"name": DOCUMENTS_VOLUME, "configMap": {"name": wanted.config_map_name}})
    if (key := wanted.api_key_secret_ref) is not None:
        items = [{"key": key.key, "path": KEY_FILE}]
        secret = {"secretName": key.name, "items": items, "defaultMode": READABLE}
        volumes.append({"name": KEY_VOLUME, "secret": secret})
    return volumes
