"""Fetch an artifact from a store, verified while it streams.

The manifest comes first and must have the digest that was asked for; nothing of it is believed before. Then the store's
own listing must show exactly the manifest's files in their sizes, so that a wrong artifact is refused before it is
downloaded. Then the files, a few at a time: hashed as they arrive, never more bytes than the manifest says.

An archive among the files is a file like any other: nothing is unpacked or decompressed, so there is nothing that could
grow beyond its listed size.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final, Protocol

from supportfleet_runtime.models.checks import FileCheck, check_digest, check_names
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import (
    LIMITS,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Limits,
    Manifest,
    parse_manifest,
)
from supportfleet_runtime.models.paths import MANIFEST
from supportfleet_runtime.models.store import Store

CONCURRENCY: Final = 4

Write = Callable[[memoryview], object]


class Folder(Protocol):
    """Where a download goes."""

    def reserve(self, size: int) -> None:
        """Check that there is room for so many bytes."""
        ...

    def write_manifest(self, data: bytes) -> None:
        """Keep the manifest."""
        ...

    def create(self, path: str) -> AbstractAsyncContextManager[Write]:
        """Create a file; leaving the context without an error leaves it safely on disk."""
        ...


class Nowhere:
    """Where a download goes that is only to be verified."""

    def reserve(self, size: int) -> None:
        """There is always room."""

    def write_manifest(self, data: bytes) -> None:
        """Drop it."""

    @asynccontextmanager
    async def create(self, path: str) -> AsyncIterator[Write]:  # noqa: ARG002 - where it would go makes no difference
        """Drop what is written."""
        yield len


async def download(store: Store, version: str, digest: str, folder: Folder, limits: Limits = LIMITS) -> Manifest:
    """Fetch an artifact into a folder.

    Raises:
        ArtifactError: With the reason; the folder may hold a part of the artifact then.
    """
    manifest = await _fetch_manifest(store, version, digest, folder, limits)
    folder.reserve(manifest.total_bytes)
    slots = asyncio.Semaphore(CONCURRENCY)
    try:
        async with asyncio.TaskGroup() as tasks:
            for entry in manifest.files:
                tasks.create_task(_fetch(store, entry, folder, slots))
    except* ArtifactError as errors:
        raise _first(errors) from errors
    return manifest


async def _fetch_manifest(store: Store, version: str, digest: str, folder: Folder, limits: Limits) -> Manifest:
    listing = await store.list(limits.files + 1)
    data = await store.read(MANIFEST, MAX_MANIFEST_BYTES)
    check_digest(data, digest)
    manifest = parse_manifest(data, limits)
    if manifest.version != version:
        raise ArtifactError(
            Reason.INVALID_MANIFEST, f"manifest.json is that of version {manifest.version!r}, not of {version!r}"
        )
    check_names(manifest, listing)
    for path, size in manifest.sizes.items():
        if listing[path] != size:
            raise ArtifactError(
                Reason.CHECKSUM_MISMATCH, f"{path!r} has {listing[path]} bytes; manifest.json says {size}"
            )
    folder.write_manifest(data)
    return manifest


async def _fetch(store: Store, entry: FileEntry, folder: Folder, slots: asyncio.Semaphore) -> None:
    async with slots, folder.create(entry.path) as write:
        check = FileCheck(entry)
        async with aclosing(store.stream(entry.path)) as chunks:
            async for chunk in chunks:
                check.update(chunk)
                write(chunk)
        check.finish()


def _first(errors: BaseExceptionGroup[ArtifactError]) -> ArtifactError:
    """One error of several tasks: a refusal says more than that the store was out of reach."""
    flat = [error for error in _flatten(errors) if isinstance(error, ArtifactError)]
    return min(flat, key=lambda error: error.transient)


def _flatten(group: BaseExceptionGroup[ArtifactError]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_flatten(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
