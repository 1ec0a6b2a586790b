"""What our images are made of: the files of each one's build context, and the keys over them.

An image has two keys. The one of its dependencies covers what decides which libraries it carries; the one of the image
covers our code too. So an unchanged image is never built again, and a change of code rebuilds its last layer only.
"""

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import supportfleet
from supportfleet.errors import SupportfleetError
from supportfleet.local import cache

# The tables of pyproject.toml that decide what is installed: changed settings of a linter rebuild nothing.
_PACKAGING_TABLES = ("build-system", "project")
# The wheel's metadata takes these in.
_METADATA_FILES = ("LICENSE", "README.md")


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

    @property
    def dependency_files(self) -> tuple[str, ...]:
        """What decides its dependencies."""
        return (self.dockerfile, "constraints.txt", "pyproject.toml")

    def files(self, repository: Path) -> dict[str, Path]:
        """Its whole build context: relative names, and where each file is."""
        names = [*self.dependency_files, *_METADATA_FILES]
        folder = repository / self.package
        for path in folder.rglob("*"):
            relative = path.relative_to(repository)
            if path.is_file() and "__pycache__" not in relative.parts:
                names.append(relative.as_posix())
        files = {name: repository / name for name in sorted(names)}
        if missing := [name for name, path in files.items() if not path.is_file()]:
            raise ImageError(f"{', '.join(missing)} missing in {repository}", remedy="Restore the source checkout.")
        return files

    def dependencies_key(self, repository: Path, *environment: str) -> str:
        """The key of the image without our code, built in the given environment (base, engine)."""
        pyproject = tomllib.loads((repository / "pyproject.toml").read_text())
        packaging = json.dumps({table: pyproject.get(table) for table in _PACKAGING_TABLES}, sort_keys=True)
        content = [(repository / name).read_bytes() for name in (self.dockerfile, "constraints.txt")]
        return cache.digest(*environment, packaging, *content)

    def key(self, repository: Path, *environment: str) -> str:
        """The key of the whole image."""
        code = {name: path for name, path in self.files(repository).items() if name not in self.dependency_files}
        pairs = [part for name, path in code.items() for part in (name, path.read_bytes())]
        # hatchling's own table decides what of our code goes in.
        tool = tomllib.loads((repository / "pyproject.toml").read_text()).get("tool", {}).get("hatch", {})
        return cache.digest(self.dependencies_key(repository, *environment), json.dumps(tool, sort_keys=True), *pairs)


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


def stage(files: Mapping[str, Path], folder: Path) -> None:
    """Copy a build context into an empty folder, so that the engine sees what the keys cover and nothing else."""
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
