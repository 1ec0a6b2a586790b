"""A JSON merge patch (RFC 7396), as the API server applies it; tests load this with runpy."""

from __future__ import annotations

from typing import Any


def merged(value: Any, patch: Any) -> Any:
    """The value with the patch applied: null removes; maps that become empty stay."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), inner)
    return result
