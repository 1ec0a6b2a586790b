"""What the model sync reports, and what to do about it: the reasons are the runtime's, the fields are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_PUBLISH: Final = "publish the version again, or set spec.model.version and spec.model.digest to another one"

REMEDIES: Final[Mapping[str, tuple[str, str]]] = {
    "DigestMismatch": (
        "spec.model.digest",
        "set it to the digest that publishing this version printed, or publish the version again",
    ),
    "ChecksumMismatch": ("spec.model.version", f"a file is not what the manifest says: {_PUBLISH}"),
    "MissingFile": ("spec.model.version", f"the artifact lacks a file of its manifest: {_PUBLISH}"),
    "UnexpectedFile": ("spec.model.version", f"the artifact has a file that its manifest lacks: {_PUBLISH}"),
    "UnsafePath": ("spec.model.version", f"the manifest names a path outside the artifact: {_PUBLISH}"),
    "TooLarge": ("spec.model.version", f"the artifact is larger than allowed: {_PUBLISH}"),
    "InvalidManifest": ("spec.model.version", f"manifest.json cannot be used: {_PUBLISH}"),
    "NotFound": ("spec.model.version", "there is no such version below spec.model.uri: publish it, or name another"),
    "BucketNotFound": ("spec.model.uri", "there is no such bucket: create it, or name another"),
    "AccessDenied": (
        "spec.model.credentialsSecretRef",
        "the store refuses these credentials: correct the Secret, or let them read the bucket",
    ),
    "StorageUnreachable": (
        "spec.model.endpoint",
        "the store does not answer: correct the address, or see why it is down; it is tried again",
    ),
    "CacheNotWritable": ("spec.model.cache", "the volume cannot be written: see its access mode, size and permissions"),
    "InvalidSettings": ("spec.model", "the sync cannot use these settings: correct what the message names"),
    "LoadFailed": ("spec.model", "the model cannot be loaded: publish one that can, or go back to another"),
    "SelfTestFailed": (
        "spec.model",
        "the model does not give the answers that it was published with: publish another, or go back to another",
    ),
    "OutOfMemory": ("spec.model", "the model sync was killed for memory: the artifact is larger than it can verify"),
}
"""Reason to field and remedy."""

CONTENT: Final = frozenset(
    {
        "DigestMismatch",
        "ChecksumMismatch",
        "MissingFile",
        "UnexpectedFile",
        "UnsafePath",
        "TooLarge",
        "InvalidManifest",
        "LoadFailed",
        "SelfTestFailed",
    }
)
"""Reasons that another try cannot mend unless somebody publishes again: these are retried at leisure."""

UNKNOWN: Final = "SyncFailed"


def explain(report: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and message for a condition from what the sync reported."""
    reason = str(report.get("reason") or UNKNOWN)
    field, remedy = REMEDIES.get(reason, ("spec.model", "see the logs of the model Job"))
    said = str(report.get("message") or "").strip()
    return reason, f"{field}: {remedy}" + (f" ({said})" if said else "")
