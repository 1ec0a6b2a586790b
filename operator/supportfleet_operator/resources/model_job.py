"""The Job that must succeed before a Deployment may run on a model.

It verifies that the artifact is what the spec says, loads it and lets it answer its self-test, so that neither a wrong
digest nor a model that fails ever replaces what runs. Where models live on a claim it leaves the artifact there; where
each pod fetches its own, nowhere.
"""

from typing import Any, Final

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.environment import artifact_of
from supportfleet_operator.resources.labels import MODEL_DIGEST, labels, metadata
from supportfleet_operator.resources.pods import (
    TMP_VOLUME,
    empty_dir,
    keeps_claim,
    models_volume,
    pod_basics,
    sync_container,
)

RETRIES: Final = 3
DEADLINE_SECONDS: Final = 1800
PERMANENT_FAILURE: Final = 2
"""Exit code of ``sync-model`` for what no further try can mend: wrong content, wrong configuration."""

RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}


def model_job(agent: SupportAgent) -> dict[str, Any] | None:
    """The Job; none without a model. Revisions that differ in nothing that it depends on share it.

    It has no TTL: a finished Job is the proof that the artifact was verified, and goes when no revision needs it.
    """
    if agent.spec.model is None:
        return None
    digest = artifact_of(agent).digest
    spec = _spec(agent)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(agent, names.model_job(agent, spec), "model-sync", {MODEL_DIGEST: digest}),
        "spec": spec,
    }


def _spec(agent: SupportAgent) -> dict[str, Any]:
    """All that the Job depends on, which is also what its name is made from."""
    resources = {name: dict(values) for name, values in RESOURCES.items()}
    flags = ["--self-test"] if keeps_claim(agent) else ["--self-test", "--verify-only"]
    return {
        "backoffLimit": RETRIES,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.SYNC_CONTAINER,
                        "operator": "In",
                        "values": [PERMANENT_FAILURE],
                    },
                },
                # A pod that its node lost was not at fault, and costs no try.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {
            "metadata": {"labels": labels(agent, "model-sync")},
            "spec": {
                **pod_basics(agent),
                "restartPolicy": "Never",
                "containers": [sync_container(agent, resources, *flags)],
                "volumes": [empty_dir(TMP_VOLUME), models_volume(agent)],
            },
        },
    }
