"""Who holds which field of an object, read from ``managedFields``.

People edit children by hand, and other controllers hold fields of their own; only the first is put back. A **hand
edit** is what an interactive tool wrote: kubectl in all its forms, oc, k9s, Lens, a web console. It is undone whole,
including fields that we do not render (an environment variable that somebody added, say): server-side apply only ever
removes fields that the applier holds, so such a field is first *absorbed* into our entry of ``managedFields``, and the
apply that follows drops it. Left alone are labels and annotations that somebody added, since nothing runs differently
for them, and ``kubectl rollout restart``, which is an annotation by which people ask for new pods.

Any other manager (an autoscaler, a mesh, a policy engine) is never overridden: a field both want is a conflict, and a
conflict becomes a condition that names the manager and the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

Fields = dict[str, Any]
"""``fieldsV1``: a tree whose keys are field names, with ``{}`` as its leaves."""

HAND_TOOLS: Final = frozenset({"kubectl", "oc", "k9s", "node-fetch", "Mozilla", "curl"})
"""Managers' names of tools that people type or click in. Lens is ``node-fetch``, web consoles are ``Mozilla``."""
HAND_PREFIXES: Final = ("kubectl-", "oc-")
RESTARTED_AT: Final = "f:kubectl.kubernetes.io/restartedAt"
REPLICAS: Final = ("f:spec", "f:replicas")


def is_hand_tool(manager: str) -> bool:
    """Whether a manager's name is that of a tool that a person uses."""
    return manager in HAND_TOOLS or manager.startswith(HAND_PREFIXES)


def trim(managed_fields: Iterable[Mapping[str, Any]], own: str) -> list[dict[str, Any]]:
    """The little of ``managedFields`` worth caching: hand edits, and whether we hold the number of replicas."""
    kept: list[dict[str, Any]] = []
    for entry in managed_fields:
        if entry.get("manager") == own and entry.get("operation") == "Apply":
            if REPLICAS[1] in entry.get("fieldsV1", {}).get(REPLICAS[0], {}):
                kept.append({"manager": own, "operation": "Apply", "fieldsV1": {REPLICAS[0]: {REPLICAS[1]: {}}}})
        elif is_hand_tool(entry.get("manager", "")) and (fields := running_fields(entry)):
            kept.append({**entry, "fieldsV1": fields})
    return kept


def holds_replicas(managed_fields: Iterable[Mapping[str, Any]], own: str) -> bool:
    """Whether dropping ``spec.replicas`` from what we apply would reset it to one."""
    return any(
        entry.get("manager") == own
        and entry.get("operation") == "Apply"
        and REPLICAS[1] in entry.get("fieldsV1", {}).get(REPLICAS[0], {})
        for entry in managed_fields
    )


def hand_edits(managed_fields: Iterable[Mapping[str, Any]], *, replicas_are_ours: bool) -> list[str]:
    """The hand tools that changed what runs. The number of replicas counts only where it is ours to set."""
    return sorted(
        {
            str(entry["manager"])
            for entry in managed_fields
            if is_hand_tool(entry.get("manager", "")) and running_fields(entry, replicas_are_ours=replicas_are_ours)
        }
    )


def running_fields(entry: Mapping[str, Any], *, replicas_are_ours: bool = True) -> Fields:
    """The fields of an entry that change what runs: neither metadata and status, nor a request to restart."""
    if entry.get("subresource") == "status":
        return {}
    fields = {
        name: value
        for name, value in (entry.get("fieldsV1") or {}).items()
        if name not in {"f:metadata", "f:status", "f:apiVersion", "f:kind"}
    }
    return _without(fields, replicas_are_ours=replicas_are_ours)


def absorb(
    managed_fields: Iterable[Mapping[str, Any]], own: str, *, replicas_are_ours: bool
) -> list[dict[str, Any]] | None:
    """``managedFields`` with hand edits moved into our entry; None without an entry of ours to move them into."""
    entries = [dict(entry) for entry in managed_fields]
    ours = next((entry for entry in entries if entry.get("manager") == own and entry.get("operation") == "Apply"), None)
    if ours is None:
        return None
    merged: Fields = ours.get("fieldsV1") or {}
    rest = []
    for entry in entries:
        moved = running_fields(entry, replicas_are_ours=replicas_are_ours)
        if not is_hand_tool(entry.get("manager", "")) or not moved:
            rest.append(entry)
            continue
        merged = _merge(merged, moved)
        if remaining := _subtract(entry["fieldsV1"], moved):
            rest.append({**entry, "fieldsV1": remaining})
    ours["fieldsV1"] = merged
    return rest


def _without(tree: Fields, *, replicas_are_ours: bool) -> Fields:
    """A copy without what people may set: the restart annotation, and replicas where an autoscaler has them."""
    copy: Fields = {}
    for name, value in tree.items():
        if name == RESTARTED_AT:
            continue
        if name == REPLICAS[0] and not replicas_are_ours:
            value = {key: below for key, below in value.items() if key != REPLICAS[1]}  # noqa: PLW2901 - a filtered view
            if not value:
                continue
        below = _without(value, replicas_are_ours=True) if value else value
        if below or not value:
            copy[name] = below
    return {} if set(copy) == {"."} else copy


def _merge(left: Fields, right: Fields) -> Fields:
    merged = dict(left)
    for name, value in right.items():
        merged[name] = _merge(merged[name], value) if name in merged else value
    return merged


def _subtract(tree: Fields, taken: Fields) -> Fields:
    rest: Fields = {}
    for name, value in tree.items():
        if name not in taken:
            rest[name] = value
        elif value and (below := _subtract(value, taken[name])):
            rest[name] = below
    return rest
