"""Labels, annotations and owner references of everything that belongs to an agent."""

from typing import Any, Final, Literal

from supportfleet_operator.api import API_VERSION, GROUP, KIND, SupportAgent

FIELD_MANAGER: Final = "supportfleet-operator"
"""Under this name the operator applies what it renders."""

AGENT: Final = f"{GROUP}/agent"
"""Label of every child: the name of its agent. Watches select by it."""
REVISION: Final = f"{GROUP}/revision"
"""Label of pods and of what belongs to one revision: its name."""
NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT: Final = "app.kubernetes.io/component"

APP_NAME: Final = "supportagent"
MANAGER_NAME: Final = "supportfleet"

MODEL_DIGEST: Final = f"{GROUP}/model-digest"
"""Annotation of pods and of the sync Job: the artifact that they must run on."""

Component = Literal["agent", "worker", "tools", "model-sync", "model-channel", "checklist"]
"""agent: pods that customers reach, and what serves them. worker and tools: the layers behind those, where an agent has
them. model-sync: what fetches the model. model-channel: what asks which one. checklist: what tries a revision out."""


def labels(agent: SupportAgent, component: Component = "agent", revision: str | None = None) -> dict[str, str]:
    """Labels of a child; with a revision those of a child of that revision alone."""
    return {
        NAME: APP_NAME,
        INSTANCE: agent.metadata.name,
        MANAGED_BY: MANAGER_NAME,
        COMPONENT: component,
        AGENT: agent.metadata.name,
        **({REVISION: revision} if revision else {}),
    }


def selector(agent: SupportAgent, revision: str | None = None, component: Component = "agent") -> dict[str, str]:
    """What chooses the pods that customers reach, of one revision or of all, or those of a layer; no others."""
    own = {COMPONENT: component, AGENT: agent.metadata.name}
    return own | {REVISION: revision} if revision else own


def selector_text(agent: SupportAgent) -> str:
    """The same as one text, for ``status.selector``."""
    return ",".join(f"{key}={value}" for key, value in selector(agent).items())


def metadata(
    agent: SupportAgent,
    name: str,
    component: Component = "agent",
    annotations: dict[str, str] | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Metadata of a child: deleted with its agent, and found by its labels."""
    meta: dict[str, Any] = {
        "name": name,
        "namespace": agent.metadata.namespace,
        "labels": labels(agent, component, revision),
        "ownerReferences": [owner_reference(agent)],
    }
    if annotations:
        meta["annotations"] = dict(annotations)
    return meta


def owner_reference(agent: SupportAgent) -> dict[str, Any]:
    """The reference that makes the agent the controller of a child."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": agent.metadata.name,
        "uid": agent.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
