"""Bring the model that the settings name onto the volume, or say why not.

``sync`` does it in one go, for an init container, and ``sync_tested`` for the Job that all pods wait for. A process
that reloads its model takes the steps one by one: ``fetch``, then its own check of what the model says, then ``keep``
or ``discard``.

One sync writes to a volume at a time. If the version is there already and every byte of it is right, nothing is
downloaded; else it is fetched beside the others and switched to in one step. Whatever fails leaves the previous
version, and ``current``, as they were.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from supportfleet_runtime.models.cache import KEPT_VERSIONS, ModelCache
from supportfleet_runtime.models.download import Folder, Nowhere, download
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.settings import SyncSettings
from supportfleet_runtime.models.store import open_store


@dataclass(frozen=True)
class Synced:
    """What a sync did."""

    digest: str
    version: str
    downloaded: bool
    message: str


async def verify_remote(settings: SyncSettings) -> Synced:
    """Fetch and verify the artifact, and keep nothing.

    Raises:
        ArtifactError: With the reason.
    """
    await _download(settings, Nowhere())
    message = f"version {settings.version} at {settings.artifact} is what {settings.digest} pins"
    return Synced(settings.digest, settings.version, downloaded=True, message=message)


async def sync(settings: SyncSettings, *, keep: int = KEPT_VERSIONS) -> Synced:
    """Make the artifact the current one on the volume.

    Raises:
        ArtifactError: With the reason.
    """
    cache = ModelCache(settings.directory)
    try:
        async with cache.locked(settings.timeout):
            return await _sync_locked(cache, settings, keep)
    except ArtifactError as error:
        # A volume that is mounted read-only needs no lock, as long as nothing has to be written.
        unwritable = error.reason is Reason.CACHE_NOT_WRITABLE and not error.transient
        if unwritable and cache.current() == settings.digest and await asyncio.to_thread(cache.holds, settings.digest):
            return _already_there(settings)
        raise


async def sync_tested(
    settings: SyncSettings, test: Callable[[Path], None], *, stay: bool, keep: int = KEPT_VERSIONS
) -> Synced:
    """As ``sync``, once ``test`` has passed in a thread; without ``stay`` nothing is left on the volume.

    Raises:
        ArtifactError: With the reason; ``test``'s as well. What was current stays current.
    """
    path = await fetch(settings)
    try:
        await asyncio.to_thread(test, path)
    except ArtifactError:
        await discard(settings)
        raise
    if stay:
        return await sync(settings, keep=keep)
    await discard(settings)
    message = (
        f"version {settings.version} at {settings.artifact} is what {settings.digest} pins, and passes its self-test"
    )
    return Synced(settings.digest, settings.version, downloaded=True, message=message)


async def fetch(settings: SyncSettings) -> Path:
    """Have the artifact on the volume, verified, and say where; which one is current stays as it is.

    A volume that can't be written is enough where the artifact is there.

    Raises:
        ArtifactError: With the reason.
    """
    cache = ModelCache(settings.directory)
    if not await asyncio.to_thread(cache.holds, settings.digest):
        async with cache.locked(settings.timeout):
            cache.remove_leftovers()
            if not await asyncio.to_thread(cache.holds, settings.digest):
                await _install(cache, settings)
    return cache.path(settings.digest)


async def keep(settings: SyncSettings, *, versions: int = KEPT_VERSIONS) -> None:
    """Make a fetched artifact the current one, and remove those that were used longest ago.

    Raises:
        ArtifactError: CacheNotWritable.
    """
    async with _locked(settings) as cache:
        if cache.current() != settings.digest:
            cache.activate(settings.digest)
        cache.prune(versions)


async def discard(settings: SyncSettings) -> None:
    """Remove a fetched artifact, unless it is the current one.

    Raises:
        ArtifactError: CacheNotWritable.
    """
    async with _locked(settings) as cache:
        cache.remove(settings.digest)


@asynccontextmanager
async def _locked(settings: SyncSettings) -> AsyncIterator[ModelCache]:
    """The volume, to be written to by nobody else meanwhile."""
    cache = ModelCache(settings.directory)
    async with cache.locked(settings.timeout):
        yield cache


async def _sync_locked(cache: ModelCache, settings: SyncSettings, keep: int) -> Synced:
    cache.remove_leftovers()
    if there := await asyncio.to_thread(cache.holds, settings.digest):
        done = _already_there(settings)
    else:
        await _install(cache, settings)
        message = f"version {settings.version} was fetched from {settings.artifact} and verified"
        done = Synced(settings.digest, settings.version, downloaded=True, message=message)
    if not there or cache.current() != settings.digest:
        cache.activate(settings.digest)
    cache.prune(keep)
    return done


async def _install(cache: ModelCache, settings: SyncSettings) -> None:
    with cache.incoming() as folder:
        await _download(settings, folder)
        await asyncio.to_thread(cache.install, folder, settings.digest)


async def _download(settings: SyncSettings, folder: Folder) -> None:
    store = open_store(settings.artifact, settings.s3, timeout=settings.timeout)
    try:
        async with asyncio.timeout(settings.timeout):
            await download(store, settings.version, settings.digest, folder)
    except TimeoutError as error:
        raise ArtifactError(
            Reason.STORAGE_UNREACHABLE, f"{settings.artifact} was not fetched within {settings.timeout:.0f} s"
        ) from error


def _already_there(settings: SyncSettings) -> Synced:
    message = f"version {settings.version} was there and is intact"
    return Synced(settings.digest, settings.version, downloaded=False, message=message)
