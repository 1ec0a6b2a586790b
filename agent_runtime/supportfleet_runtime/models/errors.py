"""What can be wrong with an artifact, or with where it comes from or goes to.

::

    SupportfleetError
    └── ArtifactError   carries a Reason, which says what kind of thing it is and whether another try can help
"""

from enum import StrEnum
from typing import Final

from supportfleet_runtime.errors import SupportfleetError

PERMANENT: Final = 2
TRANSIENT: Final = 3


class Reason(StrEnum):
    """Why an artifact was refused or could not be had. The operator copies it into a condition."""

    DIGEST_MISMATCH = "DigestMismatch"
    """The manifest is not the one whose digest was asked for."""
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    """A file's size or SHA-256 is not what the manifest says."""
    MISSING_FILE = "MissingFile"
    """The manifest lists a file that is not there."""
    UNEXPECTED_FILE = "UnexpectedFile"
    """A file is there that the manifest does not list."""
    UNSAFE_PATH = "UnsafePath"
    """A path that could lead out of the artifact's folder, or mean two things on two systems."""
    TOO_LARGE = "TooLarge"
    """More files or bytes than the limits allow."""
    INVALID_MANIFEST = "InvalidManifest"
    """The manifest is malformed, or that of another version."""
    LOAD_FAILED = "LoadFailed"
    """The bytes are right, but they are no model that can be run."""
    SELF_TEST_FAILED = "SelfTestFailed"
    """The model runs, but does not answer as it did when it was trained."""
    NOT_FOUND = "NotFound"
    """There is no such version."""
    BUCKET_NOT_FOUND = "BucketNotFound"
    """There is no such bucket, or not in this region."""
    ACCESS_DENIED = "AccessDenied"
    """The store refuses these credentials, or there are none."""
    STORAGE_UNREACHABLE = "StorageUnreachable"
    """The store does not answer, answers with an error of its own, or is too slow."""
    CACHE_NOT_WRITABLE = "CacheNotWritable"
    """The volume that models are kept on is full, read-only or locked."""
    INVALID_SETTINGS = "InvalidSettings"
    """The environment does not say which model, or says it wrongly."""
    VERSION_EXISTS = "VersionExists"
    """Publishing only: this version is there with other content."""


class ArtifactError(SupportfleetError):
    """An artifact was refused, or could not be fetched, kept or published. The message names no secret."""

    def __init__(self, reason: Reason, message: str, *, transient: bool | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.transient = reason is Reason.STORAGE_UNREACHABLE if transient is None else transient

    @property
    def exit_code(self) -> int:
        """What the command ends with: whether to try again."""
        return TRANSIENT if self.transient else PERMANENT
