"""Builders: one module for each kind of child, every function pure: an agent in, a new manifest out."""

from supportfleet_operator.resources.channel import channel_job, resolved
from supportfleet_operator.resources.checklist import checklist_job
from supportfleet_operator.resources.children import (
    CHILD_KINDS,
    ChildKind,
    RevisionChildren,
    SharedChildren,
    revision_children,
    shared_children,
)
from supportfleet_operator.resources.labels import (
    AGENT,
    COMPONENT,
    FIELD_MANAGER,
    MANAGED_BY,
    MANAGER_NAME,
    MODEL_DIGEST,
    REVISION,
    owner_reference,
    selector,
    selector_text,
)
from supportfleet_operator.resources.manifests import Manifest
from supportfleet_operator.resources.revision import at_revision, controller_revision, revision_name, snapshot
from supportfleet_operator.resources.routing import NOBODY, Routing

__all__ = [
    "AGENT",
    "CHILD_KINDS",
    "COMPONENT",
    "FIELD_MANAGER",
    "MANAGED_BY",
    "MANAGER_NAME",
    "MODEL_DIGEST",
    "NOBODY",
    "REVISION",
    "ChildKind",
    "Manifest",
    "RevisionChildren",
    "Routing",
    "SharedChildren",
    "at_revision",
    "channel_job",
    "checklist_job",
    "controller_revision",
    "owner_reference",
    "resolved",
    "revision_children",
    "revision_name",
    "selector",
    "selector_text",
    "shared_children",
    "snapshot",
]
