"""Builders: one module for each kind of child, every function pure: an agent in, a new manifest out."""

from supportfleet_operator.resources.children import CHILD_KINDS, ChildKind, Children, Manifest, children
from supportfleet_operator.resources.labels import (
    AGENT,
    COMPONENT,
    CONFIG_HASH,
    FIELD_MANAGER,
    MANAGED_BY,
    MANAGER_NAME,
    MODEL_DIGEST,
    owner_reference,
    selector,
    selector_text,
)

__all__ = [
    "AGENT",
    "CHILD_KINDS",
    "COMPONENT",
    "CONFIG_HASH",
    "FIELD_MANAGER",
    "MANAGED_BY",
    "MANAGER_NAME",
    "MODEL_DIGEST",
    "ChildKind",
    "Children",
    "Manifest",
    "children",
    "owner_reference",
    "selector",
    "selector_text",
]
