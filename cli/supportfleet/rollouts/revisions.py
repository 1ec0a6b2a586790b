"""Revisions as the command line knows them: what makes one, and how two are told apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from supportfleet.rollouts.api import Object

PARTS: Final = ("template", "config", "llm", "database", "model", "topology", "worker", "tools")
"""Fields of the spec that change behaviour: a change of any of them is a new revision."""
CONFIG_FILE: Final = "agent_config.json"
CLAIM: Final = "PersistentVolumeClaim"
OF_THE_CLAIM: Final = frozenset({"size", "storageClassName", "accessModes"})
"""Fields of ``spec.model.cache`` that describe the claim, which all revisions share."""
OF_THE_CHANNEL: Final = frozenset({"channel", "channelPollSeconds"})
"""Fields of ``spec.model`` that say where version and digest come from: the revision is what they are."""
OF_THE_ARTIFACT: Final = frozenset({"uri", "version", "digest"})
"""Fields of ``spec.model`` that pods follow without a new revision, where they reload hot."""
HOT: Final = "Hot"
LAYERS: Final = ("worker", "tools")
"""Fields of the spec for those behind the pods that customers reach, and components of their Deployments."""
OF_A_LAYER: Final = frozenset({"resources"})
"""Fields of a layer that change its pods, and not how many there are."""
COMBINED: Final = "Combined"
"""The topology of what names none."""


def behaviour(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec, with its defaults, makes its revision."""
    parts = {part: _without_null(spec[part]) for part in PARTS if spec.get(part) is not None}
    parts["config"] = spec.get("config") or {}  # as it is: null may mean something there
    if affinity := parts.get("template", {}).get("affinity"):
        parts["template"]["affinity"] = _without_empty_lists(affinity)
    if "model" in parts:
        parts["model"] = _model(parts["model"])
    if parts.get("topology") == COMBINED:
        del parts["topology"]
    for name in LAYERS:
        layer = {key: value for key, value in parts.pop(name, {}).items() if key in OF_A_LAYER}
        parts |= {name: layer} if layer else {}
    return parts


def changes_behaviour(path: str) -> bool:
    """Whether a change of this field, such as ``spec.worker.resources.limits.cpu``, makes another revision."""
    _, part, below, *_ = [*path.replace("[", ".").split("."), "", ""]
    return below in OF_A_LAYER if part in LAYERS else part in PARTS


def fingerprint(spec: Mapping[str, Any]) -> str:
    """The same as one text: two specs are one revision where this is equal; in Python, True equals 1."""
    return json.dumps(behaviour(spec), sort_keys=True)


def resolved(spec: Mapping[str, Any], status: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The spec with the version and digest that its channel pointed at last, as far as the status says."""
    model, found = spec.get("model") or {}, (status or {}).get("model") or {}
    if not model.get("channel") or found.get("channel") != model["channel"]:
        return spec
    artifact = {"version": found.get("channelVersion"), "digest": found.get("channelDigest")}
    return {**spec, "model": {**model, **artifact}}


def is_unresolved(spec: Mapping[str, Any]) -> bool:
    """Whether only what a channel points at decides which revision the spec is."""
    model = spec.get("model") or {}
    return bool(model.get("channel")) and not model.get("digest") and model.get("reload") != HOT


def _model(model: Mapping[str, Any]) -> dict[str, Any]:
    left_out = OF_THE_CHANNEL | (OF_THE_ARTIFACT if model.get("reload") == HOT else frozenset())
    kept_ = {key: value for key, value in model.items() if key not in left_out}
    cache = model.get("cache") or {}
    if cache.get("type") == CLAIM:
        kept_["cache"] = {key: value for key, value in cache.items() if key not in OF_THE_CLAIM}
    return kept_


def kept(revision: Object) -> dict[str, Any]:
    """The spec's parts that a ControllerRevision keeps."""
    data = revision.get("data") or {}
    return {**(data.get("spec") or {}), "config": json.loads(data.get(CONFIG_FILE) or "{}")}


def same_as(spec: Mapping[str, Any], revisions: dict[str, Object]) -> str | None:
    """The name of the kept revision that a spec is; None for a new one."""
    wanted = fingerprint(spec)
    return next((name for name, one in reversed(revisions.items()) if fingerprint(kept(one)) == wanted), None)


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _without_empty_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_lists(item) for key, item in value.items() if item != []}
    return [_without_empty_lists(item) for item in value] if isinstance(value, list) else value
