"""What is remembered of each cluster, where, and who may change it now.

One folder for each cluster under the state folder. Whoever changes a cluster holds its lock; the kernel lets go of it
when that process ends, however it ends.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from supportfleet.errors import ClusterError, NotRootError
from supportfleet.local.embedded import files

SCHEMA = 1
LOCK_SECONDS = 900


def home(environ: Mapping[str, str] | None = None) -> Path:
    """The state folder: $SUPPORTFLEET_HOME, else supportfleet under $XDG_STATE_HOME, else under ~/.local/state."""
    environ = os.environ if environ is None else environ
    if own := environ.get("SUPPORTFLEET_HOME"):
        return Path(own).expanduser().absolute()
    xdg = environ.get("XDG_STATE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".local" / "state"
    return base / "supportfleet"


@dataclass(frozen=True)
class Record:
    """What a cluster was made as, kept in its folder."""

    name: str
    provider: str
    nodes: int
    istio: bool = False
    index: int = 0
    # Whether `up` has come to its end since this was last changed.
    complete: bool = False
    schema: int = SCHEMA


def folder(name: str) -> Path:
    """A cluster's folder."""
    return home() / "clusters" / name


def load(name: str) -> Record | None:
    """What is remembered of the cluster; None where nothing is."""
    path = folder(name) / "cluster.json"
    try:
        record = Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotRootError(f"{path} can't be read", remedy="Ask as the user who made the cluster: root.") from error
    except (ValueError, TypeError) as error:
        raise DamagedStateError(path, name) from error
    if record.schema != SCHEMA:
        raise DamagedStateError(path, name)
    return record


def save(record: Record) -> None:
    """Remember a cluster."""
    files.write(folder(record.name) / "cluster.json", files.to_json(asdict(record)))


def forget(name: str) -> bool:
    """Remove a cluster's folder; say whether there was one."""
    path = folder(name)
    if not path.exists():
        return False
    shutil.rmtree(path)
    return True


def known() -> list[Record]:
    """Every cluster that is remembered and can be read."""
    found = []
    for path in sorted((home() / "clusters").glob("*/cluster.json")):
        with contextlib.suppress(DamagedStateError):
            if record := load(path.parent.name):
                found.append(record)
    return found


class DamagedStateError(ClusterError):
    """What is remembered of a cluster can't be read, or is of another version."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(
            f"{path} is damaged or was written by another version",
            remedy=f"Make the cluster anew: supportfleet local down --name {name}, then up.",
        )


@contextlib.asynccontextmanager
async def locked(name: str, *, where: Path | None = None, seconds: float = LOCK_SECONDS) -> AsyncIterator[None]:
    """Be the only one that changes this cluster (or whatever else has this name in that folder)."""
    path = (where or home() / "locks") / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"another command has held {path} for more than {seconds:.0f} s",
                remedy=f"Wait for it; `fuser {path}` names its process.",
            )
        await asyncio.sleep(0.2)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before removed the file: a lock on what is no longer there keeps nobody out.
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
