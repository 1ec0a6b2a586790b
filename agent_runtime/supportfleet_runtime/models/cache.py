"""The volume that models are kept on.

::

    $MODEL_DIR/
      versions/<64 hex digits of the digest>/   a verified artifact; it appears whole or not at all
      current -> versions/<64 hex digits>       the one in use; switched in one step
      incoming/<random>/                        a download in progress; what a killed one left is removed by the next
      lock                                      held by the sync that writes

A new version is written beside the others on the same file system, its files and folders are flushed to disk, and one
rename makes it visible. Until then, whatever fails, the previous version stays where it is, and so does ``current``.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Final

from supportfleet_runtime.models.artifact import verify_artifact
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.manifest import DIGEST_PREFIX
from supportfleet_runtime.models.paths import MANIFEST

KEPT_VERSIONS: Final = 2
LOCK_POLL_SECONDS: Final = 0.1
_SPARE_BYTES: Final = 1 << 20
_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_HEX_LENGTH: Final = 64


class IncomingFolder:
    """Where a download goes before it is known to be whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def reserve(self, size: int) -> None:
        """Check that there is room for so many bytes.

        Raises:
            ArtifactError: CacheNotWritable.
        """
        with translated(self.path):
            status = os.statvfs(self.path)
        if (free := status.f_bavail * status.f_frsize) < size + _SPARE_BYTES:
            raise ArtifactError(
                Reason.CACHE_NOT_WRITABLE,
                f"the model needs {size} bytes and the volume has {free} left: enlarge spec.model.cache.size",
            )

    def write_manifest(self, data: bytes) -> None:
        """Keep the manifest."""
        with translated(self.path), self._open(MANIFEST) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @asynccontextmanager
    async def create(self, path: str) -> AsyncIterator[Callable[[memoryview], object]]:
        """Create a file, and the folders it lies in; leaving the context without an error leaves it safely on disk.

        Raises:
            ArtifactError: CacheNotWritable.
        """
        with translated(self.path):
            (self.path / path).parent.mkdir(parents=True, exist_ok=True)
            with self._open(path) as file:
                yield file.write
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())

    def _open(self, path: str) -> BufferedWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(self.path / path, flags, 0o644), "wb")


class ModelCache:
    """The versions of a model on a volume."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"
        self._incoming = root / "incoming"
        self._current = root / "current"

    def path(self, digest: str) -> Path:
        """Where a version is kept."""
        return self._versions / digest.removeprefix(DIGEST_PREFIX)

    def current(self) -> str | None:
        """The digest of the version in use."""
        try:
            target = self.root / self._current.readlink()
        except OSError:  # there is none yet, or it is no link
            return None
        return DIGEST_PREFIX + target.name if target.parent == self._versions else None

    def holds(self, digest: str) -> bool:
        """Whether a version is there, every byte of it. Reads all its files."""
        folder = self.path(digest)
        if folder.is_symlink() or not folder.is_dir():
            return False
        try:
            verify_artifact(folder, digest)
        except ArtifactError:
            return False
        return True

    @asynccontextmanager
    async def locked(self, patience: float) -> AsyncIterator[None]:
        """Be the only one that writes to the volume. The lock goes with its process, however that ends.

        Raises:
            ArtifactError: CacheNotWritable; another sync still held it after ``patience`` seconds, or it can't be made.
        """
        with translated(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with translated(self.root):
                await self._wait_for_lock(handle, patience)
            yield
        finally:
            os.close(handle)

    async def _wait_for_lock(self, handle: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                raise ArtifactError(
                    Reason.CACHE_NOT_WRITABLE,
                    f"another sync has been writing to {self.root} for {patience:.0f} s",
                    transient=True,
                )
            await asyncio.sleep(LOCK_POLL_SECONDS)

    def remove_leftovers(self) -> None:
        """Remove what killed syncs left. Only with the lock."""
        with translated(self.root):
            if self._incoming.is_symlink():
                self._incoming.unlink()
            if self._incoming.exists():
                shutil.rmtree(self._incoming)

    @contextmanager
    def incoming(self) -> Iterator[IncomingFolder]:
        """A new empty folder for a download; removed again unless it was installed. Only with the lock."""
        path = self._incoming / secrets.token_hex(8)
        with translated(self.root):
            path.mkdir(parents=True)
        try:
            yield IncomingFolder(path)
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)  # what stays is removed by the next sync

    def install(self, folder: IncomingFolder, digest: str) -> None:
        """Verify that a download is whole, and make it a version. Only with the lock."""
        verify_artifact(folder.path, digest)
        with translated(self.root):
            for path, _, _ in os.walk(folder.path, topdown=False):
                _sync_folder(Path(path))
            self._versions.mkdir(exist_ok=True)
            target = self.path(digest)
            if target.is_symlink() or target.exists():  # a version that was found damaged
                target.rename(folder.path.with_suffix(".damaged"))
            folder.path.rename(target)
            _sync_folder(self._versions)

    def activate(self, digest: str) -> None:
        """Make a version the one in use. Only with the lock."""
        link = self._incoming / secrets.token_hex(8)
        with translated(self.root):
            self._incoming.mkdir(exist_ok=True)
            link.symlink_to(self.path(digest).relative_to(self.root))
            link.replace(self._current)
            _sync_folder(self.root)
            os.utime(self.path(digest))  # when it was last put in use decides which versions are kept
        shutil.rmtree(self._incoming, ignore_errors=True)

    def remove(self, digest: str) -> None:
        """Remove a version, unless it is the one in use. Only with the lock."""
        with translated(self.root):
            if self.current() != digest and self.path(digest).exists():
                shutil.rmtree(self.path(digest))

    def prune(self, keep: int = KEPT_VERSIONS) -> None:
        """Remove all but the version in use and those used last. Only with the lock."""
        used = self.current()
        with translated(self.root):
            others = [
                path for path in self._versions.iterdir() if _is_version(path) and used != DIGEST_PREFIX + path.name
            ]
            others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in others[max(keep - 1, 0) :]:
                shutil.rmtree(path)


@contextmanager
def translated(root: Path) -> Iterator[None]:
    """Turn errors of the file system into a reason.

    Raises:
        ArtifactError: CacheNotWritable.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        remedy = ": enlarge spec.model.cache.size" if full else ""
        raise ArtifactError(
            Reason.CACHE_NOT_WRITABLE, f"{error.filename or root}: {error.strerror or error}{remedy}"
        ) from error


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_version(path: Path) -> bool:
    return len(path.name) == _HEX_LENGTH and set(path.name) <= _HEX_DIGITS and path.is_dir() and not path.is_symlink()


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # network file systems that know no such thing
            raise
    finally:
        os.close(handle)
