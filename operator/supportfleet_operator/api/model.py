"""``spec.model``: the model artifact, where it lies, which one it must be, and where pods keep it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from supportfleet_operator.api.base import ApiModel
from supportfleet_operator.api.rules import ListSet, Rule, exactly_one, matches
from supportfleet_operator.api.types import (
    DAY,
    FRACTIONAL,
    HttpUrl,
    Int32,
    ObjectName,
    Quantity,
    is_fractional,
    quantity,
)

EMPTY_DIR: Final = "EmptyDir"
CLAIM: Final = "PersistentVolumeClaim"
HOT: Final = "Hot"

_FOLDER: Final = "/[A-Za-z0-9_][-A-Za-z0-9._~+=@]*"
"""A part of a path, which can't climb out of it."""
URI: Final = rf"^(s3://[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9]({_FOLDER})*|file://({_FOLDER})+)/?$"
VERSION: Final = r"^[A-Za-z0-9][-A-Za-z0-9._]*$"

Folder = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63),
    matches(VERSION, "must be a folder's name: letters, digits, '-', '_' and '.', beginning with a letter or digit"),
]


def _only_for_claims(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.type == '{CLAIM}'",
        message=f"only has a meaning where type is {CLAIM}",
        check=lambda cache: getattr(cache, attribute) is None or cache.type == CLAIM,
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


def _not_with_claim_name(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || !has(self.claimName)",
        message="is not used where claimName names a claim that already exists",
        check=lambda cache: getattr(cache, attribute) is None or cache.claim_name is None,
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


def _fixed(field: str, empty: str) -> Rule:
    own = f"(%s.type == '{CLAIM}' && !has(%s.claimName))"
    value = f"(has(%s.{field}) ? %s.{field} : {empty})"
    return Rule(
        cel=(
            f"!({own % ('self', 'self')} && {own % ('oldSelf', 'oldSelf')}) || "
            f"{value % ('self', 'self')} == {value % ('oldSelf', 'oldSelf')}"
        ),
        message=(
            "can't change on a claim that exists: set type to EmptyDir first (that deletes the claim), "
            "or set claimName to a claim of your own"
        ),
        check=None,
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


class ModelCache(ApiModel):
    """Where pods keep the model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_for_claims("storageClassName", "storage_class_name"),
        _only_for_claims("accessModes", "access_modes"),
        _only_for_claims("claimName", "claim_name"),
        _not_with_claim_name("storageClassName", "storage_class_name"),
        _not_with_claim_name("accessModes", "access_modes"),
        _fixed("storageClassName", "''"),
        _fixed("accessModes", "['ReadWriteOnce']"),
        Rule(
            cel=(
                f"self.type != '{CLAIM}' || oldSelf.type != '{CLAIM}' || has(self.claimName) || "
                "quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0"
            ),
            message="can grow but not shrink on a claim that exists",
            check=None,
            field_path=".size",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=(
                "quantity(string(self.size)).isGreaterThan(quantity('0')) && "
                f"!string(self.size).matches('{FRACTIONAL}')"
            ),
            message="must be more than nothing, in bytes, such as 1Gi; the suffix m means thousandths",
            check=lambda cache: quantity(cache.size) > 0 and not is_fractional(cache.size),
            field_path=".size",
        ),
    )

    type: Literal["EmptyDir", "PersistentVolumeClaim"] = Field(
        EMPTY_DIR,
        description=(
            "EmptyDir: every pod fetches and verifies the model as it starts. "
            "PersistentVolumeClaim: it is fetched once onto a volume that the pods mount read-only."
        ),
    )
    size: Quantity = Field(
        "1Gi",
        description=(
            "Room for models: the limit of each pod's EmptyDir, or the size of the claim. Not used with claimName."
        ),
    )
    storage_class_name: ObjectName | None = Field(
        None, description="StorageClass of the claim. Default: the cluster's default class."
    )
    access_modes: (
        Annotated[
            tuple[Literal["ReadWriteOnce", "ReadWriteMany"], ...],
            Field(min_length=1, max_length=2),
            ListSet(),
        ]
        | None
    ) = Field(
        None,
        description=(
            "How the claim can be mounted. Default: ReadWriteOnce, which ties all pods to one node; "
            "pods on several nodes need ReadWriteMany."
        ),
    )
    claim_name: ObjectName | None = Field(
        None,
        description=(
            "A claim that already exists, in the agent's namespace. "
            "The operator neither makes nor deletes it. Default: a claim of the agent's own, deleted with the agent."
        ),
    )

    @property
    def has_own_claim(self) -> bool:
        """Whether it is a claim that the operator makes."""
        return self.type == CLAIM and self.claim_name is None


def _needs_s3(field: str, attribute: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.uri.startsWith('s3://')",
        message="only has a meaning where uri begins with s3://",
        check=lambda model: getattr(model, attribute) is None or model.uri.startswith("s3://"),
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


class CredentialsSecretRef(ApiModel):
    """The Secret with the storage's credentials."""

    name: ObjectName = Field(
        description=(
            "Name of a Secret in the agent's namespace, with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    )


@dataclass(frozen=True, slots=True)
class Artifact:
    """One model artifact, which never changes."""

    uri: str
    version: str
    digest: str


class Model(ApiModel):
    """The model that the agent classifies messages with."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("version", "channel", message="set exactly one of version, with its digest, and channel"),
        Rule(
            cel="!has(self.version) || has(self.digest) || has(self.channel)",
            message="version needs its digest, sha256: and 64 hexadecimal digits, as `publish-model` prints it",
            check=lambda model: model.version is None or model.digest is not None or model.channel is not None,
            field_path=".digest",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!has(self.channel) || !has(self.digest) || has(self.version)",
            message="is not used with channel, whose pointer in the bucket names version and digest: leave it out",
            check=lambda model: model.channel is None or model.digest is None or model.version is not None,
            field_path=".digest",
            reason="FieldValueForbidden",
        ),
        _needs_s3("endpoint", "endpoint"),
        _needs_s3("region", "region"),
        _needs_s3("credentialsSecretRef", "credentials_secret_ref"),
    )

    uri: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1024),
        matches(URI, "must be s3://BUCKET[/PREFIX] or file:///PATH, with plain names for folders"),
    ] = Field(
        description=(
            "Where model artifacts lie: s3://BUCKET[/PREFIX], or file:///PATH within the container "
            "(in the image, or on the cache's claim). The artifact itself is at URI/VERSION/manifest.json."
        )
    )
    version: Folder | None = Field(
        None, description="Version of the artifact: the folder below uri. Default: what channel points at."
    )
    digest: (
        Annotated[
            str,
            StringConstraints(max_length=128),
            matches(
                r"^sha256:[0-9a-f]{64}$",
                "must be sha256: and 64 lower-case hexadecimal digits, "
                "as `supportfleet-runtime publish-model` prints it",
            ),
        ]
        | None
    ) = Field(
        None,
        description=(
            "SHA-256 of the artifact's manifest.json, which in turn holds that of every file; goes with version. "
            "No pod takes traffic with a model that doesn't match it."
        ),
    )
    channel: Folder | None = Field(
        None,
        description=(
            "Follow a pointer in the bucket instead of naming a version: URI/channels/CHANNEL.json, which "
            "`supportfleet-runtime publish-model --channel` moves. What it names is used as if it stood here."
        ),
    )
    channel_poll_seconds: Annotated[Int32, Field(ge=10, le=DAY)] = Field(
        300, description="Seconds between two looks at the channel's pointer."
    )
    reload: Literal["Rollout", "Hot"] = Field(
        "Rollout",
        description=(
            "What another version is. Rollout: a new revision, with new pods, that takes over as spec.rollout says. "
            "Hot: no revision; pods that run load it beside the old one, test it and swap, "
            "and keep the old one where it fails."
        ),
    )
    endpoint: HttpUrl | None = Field(None, description="Address of an S3-compatible store. Default: AWS.")
    region: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=32),
            matches(r"^[a-z0-9-]+$", "must be a region's name, such as eu-central-1"),
        ]
        | None
    ) = Field(None, description="Region of the bucket. Default: that of the runtime, us-east-1.")
    credentials_secret_ref: CredentialsSecretRef | None = Field(
        None, description="Credentials for the bucket. Default: none, for a public bucket or a pod identity."
    )
    cache: ModelCache = Field(ModelCache(), description="Where pods keep the model.")

    @property
    def artifact(self) -> Artifact | None:
        """The artifact that it names; None while only a channel is known, and not yet what it points at."""
        if self.version is None or self.digest is None:
            return None
        return Artifact(self.uri, self.version, self.digest)

    @property
    def hot(self) -> bool:
        """Whether pods that run take another version by themselves."""
        return self.reload == HOT
