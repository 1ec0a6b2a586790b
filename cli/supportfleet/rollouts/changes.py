"""``set model`` and ``set image``: the smallest change that makes a new revision, for the cluster or for Git."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from supportfleet.errors import SupportfleetError
from supportfleet.rollouts.api import GROUP, Object
from supportfleet.rollouts.dryrun import owners

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
GITOPS: Final = frozenset(
    {"argocd-controller", "argocd-application-controller", "helm-controller", "kustomize-controller"}
)
"""Field managers that bring back what Git says."""

Spec = Mapping[str, Any]


class ChangeError(SupportfleetError):
    """The agent can't be changed this way."""


def image_change(image: str) -> dict[str, Any]:
    """The change of the spec to another image.

    Raises:
        ChangeError: It can't be an image.
    """
    if not image.strip() or any(letter.isspace() for letter in image):
        raise ChangeError(f"{image!r} is no image", remedy="Such as registry.example.com/supportfleet/agent:v2")
    return {"template": {"image": image}}


def model_change(agent: Object, version_and_digest: str) -> dict[str, Any]:
    """The change of the spec to another version of the model.

    Raises:
        ChangeError: The agent has no model, or the digest is missing or can't be one.
    """
    name, model = agent["metadata"]["name"], (agent.get("spec") or {}).get("model")
    version, _, digest = version_and_digest.partition("@")
    if not model:
        raise ChangeError(f"{name} has no model", remedy="Set spec.model with uri, version and digest first")
    if not digest:
        raise ChangeError(
            f"version {version!r} needs its digest: VERSION@sha256:…", remedy=_digest_help(model, version)
        )
    if not DIGEST.fullmatch(digest):
        raise ChangeError(
            f"{digest!r} is no digest: it is sha256: and 64 hexadecimal digits", remedy=_digest_help(model, version)
        )
    # A channel would decide otherwise; null takes it away.
    return {"model": {"version": version, "digest": digest, **({"channel": None} if model.get("channel") else {})}}


def _digest_help(model: Mapping[str, Any], version: str) -> str:
    uri = str(model.get("uri", "URI")).rstrip("/")
    copy = f"aws --endpoint-url {model['endpoint']} s3 cp" if model.get("endpoint") else "aws s3 cp"
    return (
        "'supportfleet-runtime publish-model' prints it when it publishes. Of what is published it is the SHA-256 of "
        f"the manifest, such as: {copy} {uri}/{version or 'VERSION'}/manifest.json - | sha256sum"
    )


def patch_text(agent: Object, spec: Spec) -> str:
    """The change as YAML, for Git: what to edit, or a patch for kustomize as it is."""
    meta = agent["metadata"]
    head = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "SupportAgent"}
    named = {"name": meta["name"], **({"namespace": meta["namespace"]} if meta.get("namespace") else {})}
    return yaml.safe_dump({**head, "metadata": named, "spec": spec}, sort_keys=False, width=120)


def warning(agent: Object, path: tuple[str, ...]) -> str | None:
    """What to know before a field is written that a GitOps tool holds."""
    tools = [one for one in owners(agent, path) if one in GITOPS]
    if not tools:
        return None
    return f"{tools[0]} applies {'.'.join(path)} from Git and will change it back: use --patch, and commit that"


def kept(agent: Object, spec: Spec) -> dict[str, Any]:
    """What the agent has now in the fields of a change."""
    return _picked(agent.get("spec") or {}, spec)


def _picked(value: Spec, like: Spec) -> dict[str, Any]:
    return {
        key: _picked(value.get(key) or {}, inner) if isinstance(inner, dict) else value.get(key)
        for key, inner in like.items()
    }
