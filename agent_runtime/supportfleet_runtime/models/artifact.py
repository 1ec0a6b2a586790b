"""An artifact in a folder: write one, verify one, read one into memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from supportfleet_runtime.models.checks import FileCheck, check_digest, check_names
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, digest_of, parse_manifest
from supportfleet_runtime.models.paths import MANIFEST
from supportfleet_runtime.models.tree import list_files, read_file


@dataclass(frozen=True)
class Artifact:
    """A verified artifact in memory."""

    manifest: Manifest
    digest: str
    files: Mapping[str, bytes]


def make_artifact(*, name: str, version: str, created_at: str, files: Mapping[str, bytes]) -> Artifact:
    """Describe files by a manifest.

    Raises:
        ArtifactError: The name, the version, the time or a path can't be those of an artifact.
    """
    manifest = Manifest.model_construct(
        schema_version=1,
        name=name,
        version=version,
        created_at=created_at,
        files=[FileEntry.of(path, data) for path, data in sorted(files.items())],
    )
    data = manifest.render()
    return Artifact(parse_manifest(data), digest_of(data), files)


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Write an artifact into a folder that is empty or holds another, which it replaces.

    Raises:
        ArtifactError: UnexpectedFile, where the folder holds anything else; CacheNotWritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [path for path in list_files(folder) if path not in artifact.files and path != MANIFEST]
        if foreign:
            raise ArtifactError(
                Reason.UNEXPECTED_FILE, f"{folder} holds {foreign[0]!r}, which is not of this artifact: remove it first"
            )
        (folder / MANIFEST).unlink(missing_ok=True)  # half an artifact must not look like a whole one
        for path, data in {**artifact.files, MANIFEST: artifact.manifest.render()}.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    except OSError as error:
        raise ArtifactError(Reason.CACHE_NOT_WRITABLE, f"{folder}: {error.strerror}") from error


def verify_artifact(folder: Path, digest: str | None = None) -> tuple[Manifest, str]:
    """Verify every file in a folder against its manifest, and the manifest against a digest if one is given.

    Raises:
        ArtifactError: With the reason.
    """
    manifest, found = _open(folder, digest)
    for entry in manifest.files:
        for _ in _verified(folder, entry):
            pass
    return manifest, found


def read_artifact(folder: Path, digest: str | None = None) -> Artifact:
    """Read an artifact into memory; the bytes that are verified are the bytes that are returned.

    Raises:
        ArtifactError: With the reason.
    """
    manifest, found = _open(folder, digest)
    return Artifact(manifest, found, {entry.path: b"".join(_verified(folder, entry)) for entry in manifest.files})


def _open(folder: Path, digest: str | None) -> tuple[Manifest, str]:
    names = list_files(folder)
    data = b"".join(read_file(folder, MANIFEST, MAX_MANIFEST_BYTES + 1))
    if digest:
        check_digest(data, digest)
    manifest = parse_manifest(data)
    check_names(manifest, names)
    return manifest, digest_of(data)


def _verified(folder: Path, entry: FileEntry) -> Iterator[bytes]:
    """A file's bytes, checked by the time the last has been taken."""
    check = FileCheck(entry)
    for chunk in read_file(folder, entry.path, entry.size + 1):
        check.update(chunk)
        yield chunk
    check.finish()
