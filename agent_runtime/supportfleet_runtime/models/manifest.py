"""The manifest: which files an artifact has, and the limits within which one is accepted.

It is parsed only after its bytes were found to have the digest that was asked for, and strictly all the same: an
unknown or repeated key, another type or a newer schema is refused rather than read by guess.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.paths import SEGMENT, check_paths

MAX_MANIFEST_BYTES: Final = 1 << 20
DIGEST_PREFIX: Final = "sha256:"
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class Limits:
    """How large an artifact may be. Files are never decompressed or unpacked, so these bound what is written."""

    files: int = 1000
    file_bytes: int = 4 << 30
    total_bytes: int = 8 << 30


LIMITS: Final = Limits()


def _rfc3339(value: str) -> str:
    if not _RFC3339.fullmatch(value):
        raise ValueError("must be a time as in RFC 3339, like 2026-01-31T12:00:00Z")
    datetime.fromisoformat(value)
    return value


Name = Annotated[str, Field(pattern=rf"^{SEGMENT.pattern}\z", max_length=128)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, strict=True)


class FileEntry(_Part):
    """One file of an artifact."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}\z")
    size: int = Field(ge=0)

    @classmethod
    def of(cls, path: str, data: bytes) -> Self:
        """The entry of a file with this content."""
        return cls(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


class Manifest(_Part):
    """``manifest.json``."""

    schema_version: int = Field(default=1, ge=1, le=1)
    name: Name
    version: Name
    created_at: Annotated[str, AfterValidator(_rfc3339)]
    files: list[FileEntry] = Field(min_length=1)

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(entry.size for entry in self.files)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each file."""
        return {entry.path: entry.size for entry in self.files}

    def render(self) -> bytes:
        """The same bytes for the same manifest."""
        return (json.dumps(self.model_dump(by_alias=True), indent=2, sort_keys=True) + "\n").encode()


def digest_of(manifest: bytes) -> str:
    """The digest of the artifact that has this manifest."""
    return DIGEST_PREFIX + hashlib.sha256(manifest).hexdigest()


def parse_manifest(data: bytes, limits: Limits = LIMITS) -> Manifest:
    """Read a manifest.

    Raises:
        ArtifactError: InvalidManifest, UnsafePath or TooLarge.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ArtifactError(Reason.TOO_LARGE, f"manifest.json is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = Manifest.model_validate(json.loads(data.decode(), object_pairs_hook=_without_duplicates))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _invalid(f"{place + ': ' if place else ''}{first['msg']}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, a repeated key, nested too deeply
        raise _invalid(str(error)) from error
    _check_limits(manifest.files, limits)
    check_paths(entry.path for entry in manifest.files)
    return manifest


def _check_limits(files: list[FileEntry], limits: Limits) -> None:
    if len(files) > limits.files:
        raise ArtifactError(Reason.TOO_LARGE, f"manifest.json lists {len(files)} files; {limits.files} are allowed")
    for entry in files:
        if entry.size > limits.file_bytes:
            raise ArtifactError(
                Reason.TOO_LARGE, f"{entry.path!r} has {entry.size} bytes; a file may have {limits.file_bytes}"
            )
    if (total := sum(entry.size for entry in files)) > limits.total_bytes:
        raise ArtifactError(
            Reason.TOO_LARGE, f"the files have {total} bytes together; {limits.total_bytes} are allowed"
        )


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _invalid(why: str) -> ArtifactError:
    return ArtifactError(Reason.INVALID_MANIFEST, f"manifest.json: {why[:300]}")
