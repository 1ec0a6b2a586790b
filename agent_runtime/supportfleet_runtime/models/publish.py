"""Put an artifact into a bucket: its files first, the manifest last, so that a version is either whole or not there.

A version is never changed. Publishing the same artifact again does nothing; publishing another under its version is
refused. Files that an interrupted publishing left (there is no manifest then) are written again.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supportfleet_runtime.models.artifact import verify_artifact
from supportfleet_runtime.models.channel import CHANNELS
from supportfleet_runtime.models.checks import check_names
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import LIMITS, MAX_MANIFEST_BYTES, Manifest, digest_of
from supportfleet_runtime.models.paths import MANIFEST
from supportfleet_runtime.models.settings import Location, S3Settings
from supportfleet_runtime.models.store import Store, open_store

TIMEOUT_SECONDS: Final = 1800.0


@dataclass(frozen=True)
class Published:
    """What publishing did."""

    digest: str
    version: str
    location: Location
    uploaded: bool


async def publish(folder: Path, target: Location, s3: S3Settings, *, seconds: float = TIMEOUT_SECONDS) -> Published:
    """Publish the artifact in a folder at ``<target>/<version>/``.

    Raises:
        ArtifactError: With the reason.
    """
    manifest, digest = await asyncio.to_thread(verify_artifact, folder)
    if manifest.version == CHANNELS:
        raise ArtifactError(Reason.INVALID_MANIFEST, f"a version can't be named {CHANNELS!r}: channels are kept there")
    location = target.child(manifest.version)
    store = open_store(location, s3, timeout=seconds, create=True)
    try:
        async with asyncio.timeout(seconds):
            uploaded = await _upload(store, folder, manifest, digest, location)
    except TimeoutError as error:
        raise ArtifactError(
            Reason.STORAGE_UNREACHABLE, f"{location} was not published within {seconds:.0f} s"
        ) from error
    return Published(digest, manifest.version, location, uploaded)


async def _upload(store: Store, folder: Path, manifest: Manifest, digest: str, location: Location) -> bool:
    there = await store.list(LIMITS.files + 1)
    if MANIFEST in there:
        await _check_same(store, digest, location)
        check_names(manifest, there)
        return False
    check_names(manifest, {**there, **manifest.sizes})
    for entry in manifest.files:
        await store.upload(entry.path, folder / entry.path)
    if await store.create(MANIFEST, (folder / MANIFEST).read_bytes()):
        return True
    await _check_same(store, digest, location)  # somebody else published it meanwhile
    return False


async def _check_same(store: Store, digest: str, location: Location) -> None:
    if (found := digest_of(await store.read(MANIFEST, MAX_MANIFEST_BYTES))) != digest:
        raise ArtifactError(
            Reason.VERSION_EXISTS,
            f"{location} was published with other content ({found}): a version is never changed; publish this one "
            "under another version",
        )
