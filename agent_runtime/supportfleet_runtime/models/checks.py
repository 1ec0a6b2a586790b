"""The checks between a manifest and what is really there, shared by folders and downloads."""

import hashlib
from collections.abc import Iterable

from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import FileEntry, Manifest, digest_of
from supportfleet_runtime.models.paths import MANIFEST


def check_digest(manifest: bytes, digest: str) -> None:
    """Check a manifest's bytes against the digest that was asked for.

    Raises:
        ArtifactError: DigestMismatch.
    """
    if (found := digest_of(manifest)) != digest:
        raise ArtifactError(
            Reason.DIGEST_MISMATCH,
            f"manifest.json has the digest {found}, not {digest}: spec.model.digest is that of another artifact, "
            "or the manifest was changed after it was published",
        )


def check_names(manifest: Manifest, found: Iterable[str]) -> None:
    """Check that exactly the files of the manifest are there, besides itself.

    Raises:
        ArtifactError: MissingFile or UnexpectedFile.
    """
    listed, present = manifest.sizes.keys(), set(found)
    if missing := sorted(listed - present):
        raise ArtifactError(Reason.MISSING_FILE, f"manifest.json lists {missing[0]!r}, which is not there")
    if extra := sorted(present - listed - {MANIFEST}):
        raise ArtifactError(Reason.UNEXPECTED_FILE, f"{extra[0]!r} is there, and manifest.json does not list it")


class FileCheck:
    """Checks one file while its bytes pass by: never more than the manifest says, and in the end exactly those."""

    def __init__(self, entry: FileEntry) -> None:
        self._entry = entry
        self._size = 0
        self._sha256 = hashlib.sha256()

    def update(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            ArtifactError: ChecksumMismatch, as soon as there are more than the manifest says.
        """
        self._size += len(chunk)
        if self._size > self._entry.size:
            raise self._mismatch(f"has more than the {self._entry.size} bytes that manifest.json says")
        self._sha256.update(chunk)

    def finish(self) -> None:
        """There are no more bytes.

        Raises:
            ArtifactError: ChecksumMismatch.
        """
        if self._size != self._entry.size:
            raise self._mismatch(f"has {self._size} bytes; manifest.json says {self._entry.size}")
        if (found := self._sha256.hexdigest()) != self._entry.sha256:
            raise self._mismatch(f"has the SHA-256 {found}; manifest.json says {self._entry.sha256}")

    def _mismatch(self, why: str) -> ArtifactError:
        return ArtifactError(Reason.CHECKSUM_MISMATCH, f"{self._entry.path!r} {why}")
