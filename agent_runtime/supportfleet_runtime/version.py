"""Which version of the program this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """The installed distribution's version."""
    try:
        return version("supportfleet")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
