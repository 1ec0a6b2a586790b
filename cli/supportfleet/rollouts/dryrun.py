"""What an object would be once it is applied: asked of the API server, which changes nothing (dryRun=All).

It is asked the way the object was applied before, so that a field which is left out now goes, or stays, as it will: by
server-side apply as the manager that applied it last (``kubectl apply --server-side``, Flux), or by the three-way merge
of ``kubectl apply``, which remembers in an annotation what it applied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from supportfleet.rollouts.api import APPLY, CONFLICT, FIELD_MANAGER, MERGE, Api, ApiError, Object
from supportfleet.rollouts.watching import Scope

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL: Final = "kubectl"
CLIENT_SIDE: Final = "kubectl-client-side-apply"
OPERATOR: Final = "supportfleet-operator"


async def dry_run(api: Api, scope: Scope, wanted: Object, live: Object | None) -> tuple[Object, tuple[str, ...]]:
    """The object as it would be, and what is to be known about how it would become so.

    Raises:
        ApiError: The API server refuses it.
    """
    options = {"dryRun": "All", "fieldValidation": "Strict"}
    remembered = last_applied(live)
    if live is not None and remembered is not None:
        patch = three_way(remembered, wanted)
        return await api.patch(scope.agent, patch, MERGE, fieldManager=CLIENT_SIDE, **options), ()
    manager = applied_by(live)
    try:
        return await api.patch(scope.agent, wanted, APPLY, fieldManager=manager, **options), ()
    except ApiError as error:
        if error.code != CONFLICT:
            raise
        forced = await api.patch(scope.agent, wanted, APPLY, fieldManager=manager, force="true", **options)
        return forced, tuple(_conflicts(error))


def last_applied(live: Object | None) -> Object | None:
    """What kubectl apply applied last; None where it did not."""
    text = ((live or {}).get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def applied_by(live: Object | None) -> str:
    """Who applied the spec last by server-side apply; kubectl where nobody did."""
    entries = (live or {}).get("metadata", {}).get("managedFields") or ()
    applied = [
        one
        for one in entries
        if one.get("operation") == "Apply"
        and one.get("manager") not in {FIELD_MANAGER, OPERATOR}
        and "f:spec" in (one.get("fieldsV1") or {})
    ]
    newest = max(applied, key=lambda one: one.get("time") or "", default=None)
    return newest["manager"] if newest else KUBECTL


def three_way(remembered: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that kubectl apply sends: what is wanted, and null for what it applied before and is gone."""
    patch: dict[str, Any] = {key: None for key in remembered if key not in wanted}
    for key, value in wanted.items():
        before = remembered.get(key)
        patch[key] = three_way(before if isinstance(before, dict) else {}, value) if isinstance(value, dict) else value
    return patch


def owners(live: Object, path: tuple[str, ...]) -> list[str]:
    """The managers that hold a field."""
    return [
        one["manager"]
        for one in live.get("metadata", {}).get("managedFields") or ()
        if not one.get("subresource") and _has(one.get("fieldsV1") or {}, path)
    ]


def _has(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for part in path:
        if f"f:{part}" not in fields:
            return False
        fields = fields[f"f:{part}"]
    return True


def _conflicts(error: ApiError) -> list[str]:
    """What it would take from whom."""
    said = [f"{one.get('field', '')}: {one.get('message', '')}" for one in error.causes]
    head = "applying it takes force, since somebody else wrote these fields"
    return [f"{head}: {'; '.join(said)}" if said else f"{head}: {error.message}"]
