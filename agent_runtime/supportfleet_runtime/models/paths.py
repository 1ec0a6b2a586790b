"""Which paths the files of an artifact may have.

A path is joined to a folder and opened for writing, so the rule is an allow-list, not a list of known attacks: segments
of ASCII letters, digits, ``.``, ``_`` and ``-`` that begin with a letter or digit. That leaves no room for ``..``,
absolute paths, backslashes, drive letters, NUL, hidden files, or spellings that Unicode treats as the same. Two paths
that differ only in case, or of which one would be a folder of the other, are refused too.
"""

import re
from collections.abc import Iterable
from typing import Final

from supportfleet_runtime.models.errors import ArtifactError, Reason

MANIFEST: Final = "manifest.json"
MAX_PATH_CHARACTERS: Final = 255
MAX_DEPTH: Final = 8

SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_paths(paths: Iterable[str]) -> None:
    """Check the paths that a manifest lists.

    Raises:
        ArtifactError: UnsafePath, with the path.
    """
    seen: set[str] = {MANIFEST}
    folders: set[str] = set()
    for path in paths:
        _check_path(path)
        folded = path.casefold()
        if folded in seen:
            raise _unsafe(path, "it is listed twice, or differs from another path only in case")
        seen.add(folded)
        parts = folded.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if both := sorted(folders & seen):
        raise _unsafe(both[0], "it is listed as a file and used as a folder")


def _check_path(path: str) -> None:
    if len(path) > MAX_PATH_CHARACTERS:
        raise _unsafe(path[:MAX_PATH_CHARACTERS], f"it is longer than {MAX_PATH_CHARACTERS} characters")
    segments = path.split("/")
    if len(segments) > MAX_DEPTH:
        raise _unsafe(path, f"it is more than {MAX_DEPTH} folders deep")
    if not all(SEGMENT.fullmatch(segment) for segment in segments):
        raise _unsafe(
            path, "it must be relative, of ASCII letters, digits, '.', '_', '-' and '/', with no part like '..'"
        )


def _unsafe(path: str, why: str) -> ArtifactError:
    return ArtifactError(Reason.UNSAFE_PATH, f"manifest.json lists the path {path!r}: {why}")
