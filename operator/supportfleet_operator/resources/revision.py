"""Revisions: everything that changes behaviour, as one thing with a name.

A revision's name is a hash of the parts of the spec in ``PARTS``, so that the same behaviour has the same name whenever
and wherever it is rendered. What a field's default is plays no part: a new field with a default makes no agent a new
revision. A ControllerRevision keeps those parts, so that an old revision can always be rendered again; how many pods
there are and how they are reached comes from the spec as it is now.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.api import API_VERSION, KIND, LAYERS, Layer, Model, SupportAgent, parse
from supportfleet_operator.api.base import without_empty_lists
from supportfleet_operator.resources import names
from supportfleet_operator.resources.configmap import config_json
from supportfleet_operator.resources.environment import artifact_of
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.pods import keeps_claim

PARTS: Final = ("template", "config", "llm", "database", "model", "topology", "worker", "tools")
"""Fields of the spec that change behaviour."""
OF_A_LAYER: Final = frozenset({"resources"})
"""Fields of a layer that change its pods, and not how many there are."""

HOW_IT_IS_FOUND: Final = frozenset({"channel", "channelPollSeconds"})
"""Fields of ``spec.model`` that say how to learn which model, and not which."""
OF_A_HOT_MODEL: Final = frozenset({"uri", "version", "digest"})
"""Fields of ``spec.model`` that running pods follow, so that a change of them is no revision."""
OF_THE_CLAIM: Final = frozenset({"size", "storageClassName", "accessModes"})
"""Fields of ``spec.model.cache`` that describe the claim, which revisions share, and not what pods do with it."""


def revision_name(agent: SupportAgent) -> str:
    """The name of the revision that the spec describes."""
    parts = _parts(agent, complete=False)
    if keeps_claim(agent):
        parts["model"]["cache"] = _without(parts["model"]["cache"], OF_THE_CLAIM)
    if agent.spec.model is not None and agent.spec.model.hot:
        parts["model"] = _without(parts["model"], OF_A_HOT_MODEL)
    for name in LAYERS:
        layer = {key: value for key, value in parts.pop(name, {}).items() if key in OF_A_LAYER}
        parts |= {name: layer} if layer else {}
    return f"r{names.fingerprint(parts)[: names.REVISION_LENGTH - 1]}"


def snapshot(agent: SupportAgent) -> dict[str, Any]:
    """All of the revision, as a ControllerRevision keeps it; ``at_revision`` is its inverse.

    One that names no topology is Combined, as all were before there was another.

    The configuration is kept as the text of its file: anything may be in it, such as null, which an apply would drop.
    """
    spec = _parts(agent, complete=True)
    del spec["config"]
    if not agent.spec.is_layered:
        del spec["topology"]
    return {"spec": spec, names.CONFIG_FILE: config_json(agent)}


def at_revision(agent: SupportAgent, data: Mapping[str, Any]) -> SupportAgent:
    """The agent as it is now, but for its behaviour, which is the snapshot's.

    The claim for models is one for all revisions, so it stays as the spec has it now wherever that has one; so does a
    model that pods load while they run. How many pods layers have is the spec's as it is now, where it has layers.
    Raises InvalidSupportAgentError for a snapshot that this version can't read.
    """
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": agent.metadata.model_dump(by_alias=True)}
    config = json.loads(data.get(names.CONFIG_FILE, "null"))
    then = parse({**head, "spec": {**data.get("spec", {}), "config": config}})
    parts = {name: getattr(then.spec, name) for name in PARTS}
    if agent.spec.model is not None and then.spec.model is not None:
        parts["model"] = _with_what_is_shared(then.spec.model, agent.spec.model)
    if then.spec.is_layered and agent.spec.is_layered:
        parts |= {name: _sized(getattr(then.spec, name), getattr(agent.spec, name)) for name in LAYERS}
    return agent.model_copy(update={"spec": agent.spec.model_copy(update=parts)})


def controller_revision(agent: SupportAgent, number: int) -> dict[str, Any]:
    """The ControllerRevision of the spec as it is now; ``number`` counts them, the newest being the highest."""
    revision = revision_name(agent)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(agent, names.of_revision(agent, revision), revision=revision),
        "data": snapshot(agent),
        "revision": number,
    }


def _with_what_is_shared(then: Model, now: Model) -> Model:
    """A revision's model, with what all revisions have of the model as it is now."""
    shared: dict[str, Any] = {}
    if then.cache.has_own_claim and now.cache.has_own_claim:
        shared["cache"] = now.cache
    if then.hot and now.hot:
        shared |= {name: getattr(now, name) for name in OF_A_HOT_MODEL}
    return then.model_copy(update=shared)


def _sized(then: Layer | None, now: Layer | None) -> Layer:
    """A revision's layer, with as many pods as it has now."""
    return (now or Layer()).model_copy(update={"resources": then.resources if then is not None else None})


def _parts(agent: SupportAgent, *, complete: bool) -> dict[str, Any]:
    """The parts as JSON: complete for reading them back, or only what isn't a default, for telling them apart.

    A channel must be resolved by then: a revision has one model.
    """
    parts = agent.spec.model_dump(
        mode="json", by_alias=True, include=set(PARTS), exclude_none=True, exclude_defaults=not complete
    )
    if agent.spec.model is not None:
        artifact_of(agent)
        parts["model"] = _without(parts["model"], HOW_IT_IS_FOUND)
    if "affinity" in parts["template"]:  # a free object, which pods have without what is empty in it
        parts["template"]["affinity"] = without_empty_lists(parts["template"]["affinity"])
    return parts


def _without(fields: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in left_out}
