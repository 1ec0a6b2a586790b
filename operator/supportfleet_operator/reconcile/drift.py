"""How a live object differs from the manifest it should follow, without asking the API server.

The API server adds defaults and other managers add fields, so a live object is always more than its manifest: what
counts is whether every field of the manifest holds. Lists whose items have an identity (containers, variables, volumes)
are compared by it, since others may have added items; all other lists are compared as a whole. Quantities are compared
by value. What this comparison cannot know (a webhook that rewrites images, say) the applier learns from the answer to
its own write, and remembers as a ``Settlement``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import InvalidOperation
from typing import Any, Final, NamedTuple

from supportfleet_operator.api.types import quantity

IDENTITIES: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "protocol"),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists of the Kubernetes API that are maps in truth, by the name of their field. Ports of Services follow."""
SERVICE_PORT: Final = ("port", "protocol")
QUANTITIES: Final = frozenset({"requests", "limits"})
AMOUNTS: Final = QUANTITIES | {"sizeLimit", "tolerance", "divisor"}


class Difference(NamedTuple):
    """A field that does not hold what the manifest says."""

    path: str
    live: Any
    """What it holds instead; None where it is absent."""


def differences(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[Difference]:
    """Every field of the manifest that the live object does not hold."""
    return list(_compare(desired, live, "", ""))


def _compare(desired: Any, live: Any, path: str, field: str) -> Iterator[Difference]:
    if desired == live:  # most of an object, compared without a step of Python
        return
    if isinstance(desired, dict):  # and not Mapping: both are JSON, and this runs for every field at every look
        if not isinstance(live, dict):
            if desired:
                yield Difference(path, live)
            return
        for key, value in desired.items():
            below = f"{path}.{key}" if path else key
            if key in live:
                yield from _compare(value, live[key], below, field if field in QUANTITIES else key)
            elif not _is_nothing(value):
                yield Difference(below, None)
    elif isinstance(desired, list):
        yield from _compare_lists(desired, live, path, field)
    elif not (field in AMOUNTS and _same_quantity(desired, live)):
        yield Difference(path, live)


def _compare_lists(desired: list[Any], live: Any, path: str, field: str) -> Iterator[Difference]:
    if not isinstance(live, list):
        yield Difference(path, live)
        return
    identity = _identity(field, desired)
    if identity is None:
        if len(desired) != len(live):
            yield Difference(path, live)
            return
        for index, (wanted, found) in enumerate(zip(desired, live, strict=True)):
            yield from _compare(wanted, found, f"{path}[{index}]", "")
        return
    present = {tuple(item.get(key) for key in identity): item for item in live}
    for wanted in desired:
        name = tuple(wanted.get(key) for key in identity)
        below = f"{path}[{','.join(map(str, name))}]"
        if name in present:
            yield from _compare(wanted, present[name], below, "")
        else:
            yield Difference(below, None)


def _identity(field: str, items: list[Any]) -> tuple[str, ...] | None:
    """What identifies the items of a list; None for a list that is one value."""
    if field == "ports" and items and all("targetPort" in item for item in items):
        return SERVICE_PORT
    identity = IDENTITIES.get(field)
    return identity if identity and all(key in item for item in items for key in identity) else None


def _is_nothing(value: Any) -> bool:
    """Values that the API server leaves out when it stores an object."""
    return value is None or value in ("", [], {})


def _same_quantity(desired: Any, live: Any) -> bool:
    try:
        return bool(quantity(desired) == quantity(live))
    except (InvalidOperation, TypeError, ValueError):
        return False
