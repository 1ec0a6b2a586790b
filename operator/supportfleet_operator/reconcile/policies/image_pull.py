"""The image cannot be pulled."""

from __future__ import annotations

from typing import Final

from supportfleet_operator.reconcile.policies import pods
from supportfleet_operator.reconcile.policies.base import Finding, View

REASON: Final = "ImagePullFailed"
TRYING: Final = "ErrImagePull"
REASONS: Final = (
    TRYING,
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
)


def check(view: View) -> Finding | None:
    """A pod of the agent or of its model sync waits for its image; the kubelet goes on trying by itself."""
    failed = next(pods.waiting(view.pods, REASONS), None)
    if failed is None:
        return None
    image = view.spec.template.image
    said = f": {failed.message}" if failed.message else ""
    return Finding(
        REASON,
        f"spec.template.image: {image!r} cannot be pulled ({failed.reason}): push it or set another, and "
        f"name the registry's credentials in spec.template.imagePullSecrets if it needs any{said}",
        stalled=failed.reason != TRYING,
    )
