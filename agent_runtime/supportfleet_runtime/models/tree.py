"""Look into a folder that others may write to.

Nothing in it is followed or waited for: a symbolic link, a pipe or a device is an unexpected file, never a way to
another.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supportfleet_runtime.models.errors import ArtifactError, Reason

CHUNK_BYTES: Final = 1 << 20


def list_files(folder: Path) -> list[str]:
    """The relative path of each file in a folder and its subfolders.

    Raises:
        ArtifactError: NotFound, CacheNotWritable where it can't be read, UnexpectedFile where one is no plain file.
    """
    found = []
    try:
        for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=False):
            for name in [*names, *folders]:
                path = Path(parent, name)
                mode = path.lstat().st_mode
                relative = path.relative_to(folder).as_posix()
                if stat.S_ISREG(mode):
                    found.append(relative)
                elif not stat.S_ISDIR(mode):
                    raise ArtifactError(Reason.UNEXPECTED_FILE, f"{relative!r} in {folder} is no plain file")
    except FileNotFoundError as error:
        raise ArtifactError(Reason.NOT_FOUND, f"{error.filename}: no such folder") from error
    except OSError as error:
        raise ArtifactError(Reason.CACHE_NOT_WRITABLE, f"{error.filename}: {error.strerror}") from error
    return sorted(found)


def read_file(folder: Path, path: str, limit: int) -> Iterator[bytes]:
    """Read a plain file in chunks, but no more than so many bytes.

    Raises:
        ArtifactError: MissingFile, UnexpectedFile, CacheNotWritable.
    """
    try:
        handle = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ArtifactError(Reason.UNEXPECTED_FILE, f"{path!r} in {folder} is no plain file")
            left = limit
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
    except FileNotFoundError as error:
        raise ArtifactError(Reason.MISSING_FILE, f"{path!r} is not in {folder}") from error
    except OSError as error:
        raise ArtifactError(Reason.CACHE_NOT_WRITABLE, f"{folder / path}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error
