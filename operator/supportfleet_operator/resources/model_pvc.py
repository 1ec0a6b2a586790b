"""The claim that keeps an agent's models."""

from typing import Any

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import names
from supportfleet_operator.resources.labels import metadata

DEFAULT_ACCESS_MODES = ("ReadWriteOnce",)


def model_claim(agent: SupportAgent) -> dict[str, Any] | None:
    """The PersistentVolumeClaim; none where models live in each pod, or on a claim that the user made."""
    model = agent.spec.model
    if model is None or not model.cache.has_own_claim:
        return None
    spec: dict[str, Any] = {
        "accessModes": list(model.cache.access_modes or DEFAULT_ACCESS_MODES),
        "resources": {"requests": {"storage": model.cache.size}},
    }
    if model.cache.storage_class_name is not None:
        spec["storageClassName"] = model.cache.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(agent, names.model_claim(agent), "model-sync"),
        "spec": spec,
    }
