"""Revisions: everything that changes behaviour, as one thing with a name.

A revision's name is a hash of the parts of the spec in ``PARTS``, so that the same behaviour has the same name whenever
and wherever it is rendered. What a field's default is plays no part: a new field with a default makes no agent a new
revision. A ControllerRevision keeps those parts, so that an old revision can always be rendered again; how many pods
there are and how they are reached comes from the spec as it is now.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from supportfleet_operator.api import API_VERSION, KIND, SupportAgent, parse
from supportfleet_operator.api.base import without_empty_lists
from supportfleet_operator.resources import names
from supportfleet_operator.resources.configmap import config_json
from supportfleet_operator.resources.labels import metadata
from supportfleet_operator.resources.pods import keeps_claim

PARTS: Final = ("template", "config", "llm", "database", "model")
"""Fields of the spec that change behaviour."""

OF_THE_CLAIM: Final = frozenset({"size", "storageClassName", "accessModes"})
"""Fields of ``spec.model.cache`` that describe the claim, which revisions share, and not what pods do with it."""


def revision_name(agent: SupportAgent) -> str:
    """The name of the revision that the spec describes."""
    parts = _parts(agent, complete=False)
    if keeps_claim(agent):
        cache = parts["model"]["cache"]
        parts["model"]["cache"] = {key: value for key, value in cache.items() if key not in OF_THE_CLAIM}
    return f"r{names.fingerprint(parts)[: names.REVISION_LENGTH - 1]}"


def snapshot(agent: SupportAgent) -> dict[str, Any]:
    """All of the revision, as a ControllerRevision keeps it; ``at_revision`` is its inverse.

    The configuration is kept as the text of its file: anything may be in it, such as null, which an apply would drop.
    """
    spec = _parts(agent, complete=True)
    del spec["config"]
    return {"spec": spec, names.CONFIG_FILE: config_json(agent)}


def at_revision(agent: SupportAgent, data: Mapping[str, Any]) -> SupportAgent:
    """The agent as it is now, but for its behaviour, which is the snapshot's.

    The claim for models is one for all revisions, so it stays as the spec has it now wherever that has one. Raises
    InvalidSupportAgentError for a snapshot that this version can't read.
    """
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": agent.metadata.model_dump(by_alias=True)}
    config = json.loads(data.get(names.CONFIG_FILE, "null"))
    then = parse({**head, "spec": {**data.get("spec", {}), "config": config}})
    parts = {name: getattr(then.spec, name) for name in PARTS}
    if _has_own_claim(agent) and _has_own_claim(then):
        assert agent.spec.model is not None  # noqa: S101 - it has a claim
        parts["model"] = then.spec.model and then.spec.model.model_copy(update={"cache": agent.spec.model.cache})
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


def _parts(agent: SupportAgent, *, complete: bool) -> dict[str, Any]:
    """The parts as JSON: complete for reading them back, or only what isn't a default, for telling them apart."""
    parts = agent.spec.model_dump(
        mode="json", by_alias=True, include=set(PARTS), exclude_none=True, exclude_defaults=not complete
    )
    if "affinity" in parts["template"]:  # a free object, which pods have without what is empty in it
        parts["template"]["affinity"] = without_empty_lists(parts["template"]["affinity"])
    return parts


def _has_own_claim(agent: SupportAgent) -> bool:
    return keeps_claim(agent) and agent.spec.model is not None and agent.spec.model.cache.claim_name is None
