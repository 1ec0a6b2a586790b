"""What our images are made of: the files of each one's build context, and the keys over them.

An image has two keys. The one of its dependencies covers what decides which libraries it carries; the one of the image
covers our code too. So an unchanged image is never built again, and a change of code rebuilds its last layer only.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import supportfleet
from supportfleet.errors import SupportfleetError
from supportfleet.local import cache

# The tables of pyproject.toml that decide what is installed: changed settings of a linter rebuild nothing.
_PACKAGING_TABLES = ("build-system", "project")
# The wheel's metadata takes these in.
_METADATA_FILES = ("LICENSE", "README.md")
_DEPENDENCY_FILES = ("constraints.txt", "pyproject.toml")
# Raised when the same files are to give another image.
_FORMAT = "1"


class ImageError(SupportfleetError):
    """An image is not known, or could not be built."""


@dataclass(frozen=True)
class Source:
    """One of the project's own images."""

    name: str
    package: str

    @property
    def dockerfile(self) -> str:
        """The path of its Dockerfile in the repository."""
        return f"Dockerfile.{self.name}"

    def read(self, repository: Path) -> "Context":
        """Its build context as it is now."""
        package = [
            path.relative_to(repository).as_posix()
            for path in (repository / self.package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]
        names = (self.dockerfile, *_DEPENDENCY_FILES, *_METADATA_FILES, *package)
        try:
            return Context(self, {name: (repository / name).read_bytes() for name in sorted(names)})
        except OSError as error:
            raise ImageError(
                f"{error.filename} can't be read: {error.strerror}", remedy="Restore the source checkout."
            ) from error


@dataclass(frozen=True)
class Context:
    """A build context, read once: what is built is what the keys are over, though someone edits meanwhile."""

    source: Source
    files: Mapping[str, bytes]

    def tools_key(self, engine: str) -> str:
        """The key of what wheels are installed and built with: the Dockerfile's stage of that name, and the pins."""
        dockerfile = self.files[self.source.dockerfile].decode()
        stage = dockerfile.partition(" AS tools\n")[2].partition("\nFROM ")[0]
        return cache.digest(_FORMAT, engine, stage, self.files["constraints.txt"])

    def dependencies_key(self, engine: str) -> str:
        """The key of the image without our code, as an engine builds it."""
        packaging = {table: self._pyproject.get(table) for table in _PACKAGING_TABLES}
        content = (self.files[self.source.dockerfile], self.files["constraints.txt"])
        return cache.digest(_FORMAT, engine, json.dumps(packaging, sort_keys=True), *content)

    def key(self, engine: str) -> str:
        """The key of the whole image."""
        apart = {self.source.dockerfile, *_DEPENDENCY_FILES}
        code = [part for name, content in self.files.items() if name not in apart for part in (name, content)]
        # hatchling's own table decides what of our code goes in.
        wheel = json.dumps(self._pyproject.get("tool", {}).get("hatch", {}), sort_keys=True)
        return cache.digest(self.dependencies_key(engine), wheel, *code)

    def stage(self, folder: Path) -> None:
        """Write the files into an empty folder, so that the engine sees these and no others."""
        for name, content in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    @cached_property
    def _pyproject(self) -> dict[str, Any]:
        return tomllib.loads(self.files["pyproject.toml"].decode())


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source("operator", package="operator/supportfleet_operator"),
        Source("agent", package="agent_runtime/supportfleet_runtime"),
    )
}


def repository() -> Path:
    """The root of the source checkout, which images are built from."""
    root = Path(supportfleet.__file__).parent.parent.parent
    if all((root / source.dockerfile).is_file() for source in SOURCES.values()):
        return root
    raise ImageError(
        "images are built from a source checkout, and this supportfleet was installed without one",
        remedy="Run supportfleet from a clone of its repository, or give `load-image` an archive of the image.",
    )
