"""Bring the model that the settings name onto the volume, or say why not.

One sync writes to a volume at a time. If the version is there already and every byte of it is right, nothing is
downloaded; else it is fetched beside the others and switched to in one step. Whatever fails leaves the previous
version, and ``current``, as they were.
"""

import asyncio
from dataclasses import dataclass

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


async def _sync_locked(cache: ModelCache, settings: SyncSettings, keep: int) -> Synced:
    cache.remove_leftovers()
    if there := await asyncio.to_thread(cache.holds, settings.digest):
        done = _already_there(settings)
    else:
        with cache.incoming() as folder:
            await _download(settings, folder)
            await asyncio.to_thread(cache.install, folder, settings.digest)
        message = f"version {settings.version} was fetched from {settings.artifact} and verified"
        done = Synced(settings.digest, settings.version, downloaded=True, message=message)
    if not there or cache.current() != settings.digest:
        cache.activate(settings.digest)
    cache.prune(keep)
    return done


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
