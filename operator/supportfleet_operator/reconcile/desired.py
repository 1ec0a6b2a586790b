"""What an agent should become, rendered once for each generation of its spec."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from supportfleet_operator.api import GROUP, SupportAgent, parse
from supportfleet_operator.cluster.resources import Manifest, ObjectRef, ref_of
from supportfleet_operator.resources import Children, children

APPLIED_HASH: Final = f"{GROUP}/applied-hash"
"""Annotation of every child: the hash of the manifest that was applied. It tells a removed field from a foreign one."""
HASH_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Desired:
    """A valid agent and its children."""

    agent: SupportAgent
    children: Children
    manifests: Mapping[ObjectRef, Manifest]
    """In the order in which they are applied, each with its hash."""


def render(agent: Mapping[str, Any]) -> Desired:
    """Render an agent as the API server holds it; raises InvalidSupportAgentError."""
    parsed = parse(agent)
    wanted = children(parsed)
    return Desired(parsed, wanted, {ref_of(manifest): _stamped(manifest) for manifest in wanted})


def hash_of(manifest: Mapping[str, Any]) -> str:
    """The hash that is stamped on a manifest."""
    return hashlib.sha256(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)).hexdigest()[:HASH_LENGTH]


def stamp(manifest: Mapping[str, Any]) -> str:
    """The hash that a manifest or a live object carries; empty without one."""
    return str((manifest["metadata"].get("annotations") or {}).get(APPLIED_HASH, ""))


def _stamped(manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    annotations = (metadata.get("annotations") or {}) | {APPLIED_HASH: hash_of(manifest)}
    return manifest | {"metadata": metadata | {"annotations": annotations}}
