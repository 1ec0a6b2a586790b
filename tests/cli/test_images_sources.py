"""What images are made of, and the keys over it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supportfleet.local.images import sources
from supportfleet.local.images.sources import SOURCES, Context, ImageError

PYPROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "supportfleet"
dependencies = ["pydantic"]
[tool.hatch.build.targets.wheel]
packages = ["agent_runtime/supportfleet_runtime"]
[tool.ruff]
line-length = 120
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in {
        "Dockerfile.agent": "FROM scratch",
        "Dockerfile.operator": "FROM scratch",
        "LICENSE": "Apache-2.0",
        "README.md": "# supportfleet",
        "constraints.txt": "pydantic==2",
        "pyproject.toml": PYPROJECT,
        "agent_runtime/supportfleet_runtime/__init__.py": "",
        "agent_runtime/supportfleet_runtime/storage/schema.sql": "create table",
        "agent_runtime/supportfleet_runtime/__pycache__/__init__.cpython-311.pyc": "bytecode",
        "operator/supportfleet_operator/__init__.py": "",
        "docs/index.md": "docs",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def agent(checkout: Path) -> Context:
    return SOURCES["agent"].read(checkout)


def keys(checkout: Path) -> tuple[str, str]:
    context = agent(checkout)
    return context.dependencies_key("buildah"), context.key("buildah")


def append(name: str, text: str = "\n# changed\n") -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)

    return change


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        path = checkout / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def move(old: str, new: str) -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        (checkout / old).rename(checkout / new)

    return change


@pytest.mark.parametrize(
    "change",
    [
        append("Dockerfile.agent"),
        append("constraints.txt"),
        replace("pyproject.toml", '"pydantic"', '"pydantic", "aiohttp"'),
        replace("pyproject.toml", '"hatchling"', '"hatchling>=2"'),
    ],
)
def test_what_decides_the_dependencies_changes_both_keys(checkout: Path, change: Callable[[Path], None]) -> None:
    """A changed Dockerfile, pin or requirement makes other dependencies and another image."""
    before = keys(checkout)
    change(checkout)
    after = keys(checkout)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "change",
    [
        append("agent_runtime/supportfleet_runtime/__init__.py"),
        append("agent_runtime/supportfleet_runtime/storage/schema.sql"),
        append("agent_runtime/supportfleet_runtime/new.py", ""),
        move("agent_runtime/supportfleet_runtime/__init__.py", "agent_runtime/supportfleet_runtime/other.py"),
        append("README.md"),
        replace("pyproject.toml", "packages =", 'exclude = ["x"]\npackages ='),
    ],
)
def test_code_changes_the_image_and_not_its_dependencies(checkout: Path, change: Callable[[Path], None]) -> None:
    """Changed, new and renamed files of our own make another image on the same dependencies."""
    before = keys(checkout)
    change(checkout)
    after = keys(checkout)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "change",
    [
        append("docs/index.md"),
        append("operator/supportfleet_operator/__init__.py"),
        append("Dockerfile.operator"),
        append("agent_runtime/supportfleet_runtime/__pycache__/__init__.cpython-311.pyc"),
        append("agent_runtime/__init__.py"),
        replace("pyproject.toml", "line-length = 120", "line-length = 80"),
    ],
)
def test_what_is_not_in_the_image_changes_nothing(checkout: Path, change: Callable[[Path], None]) -> None:
    """Documentation, the other image, bytecode and a linter's settings rebuild nothing."""
    before = keys(checkout)
    change(checkout)
    assert keys(checkout) == before


def test_only_pins_and_their_own_stage_change_the_tools(checkout: Path) -> None:
    """What wheels are installed with is made anew for other pins or another such stage, not for other dependencies."""

    def key() -> str:
        return agent(checkout).tools_key("buildah")

    dockerfile = checkout / "Dockerfile.agent"
    dockerfile.write_text("FROM base AS tools\nRUN install uv\n\nFROM tools AS dependencies\nRUN install the rest\n")
    before = key()
    append("Dockerfile.agent")(checkout)
    replace("pyproject.toml", '"pydantic"', '"pydantic", "aiohttp"')(checkout)
    assert key() == before
    replace("Dockerfile.agent", "install uv", "install pip")(checkout)
    other = key()
    append("constraints.txt")(checkout)
    assert len({before, other, key()}) == len(["before", "other stage", "other pins"])


def test_another_engine_or_base_is_another_image(checkout: Path) -> None:
    """The keys cover what the image is built on."""
    context = agent(checkout)
    assert context.key("buildah base-1") != context.key("buildah base-2") != context.key("docker")
    assert context.dependencies_key("buildah base-1") != context.dependencies_key("buildah base-2")


def test_the_build_sees_what_the_key_covers(checkout: Path, tmp_path: Path) -> None:
    """What is staged is the content that was read, also when the checkout changes in between."""
    context = agent(checkout)
    append("agent_runtime/supportfleet_runtime/__init__.py")(checkout)
    folder = tmp_path / "context"
    context.stage(folder)
    staged = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert staged == context.files
    assert staged["agent_runtime/supportfleet_runtime/__init__.py"] == b""
    assert sorted(staged) == [
        "Dockerfile.agent",
        "LICENSE",
        "README.md",
        "agent_runtime/supportfleet_runtime/__init__.py",
        "agent_runtime/supportfleet_runtime/storage/schema.sql",
        "constraints.txt",
        "pyproject.toml",
    ]


def test_a_damaged_checkout_is_said(checkout: Path) -> None:
    """A missing file is named, with the remedy."""
    (checkout / "constraints.txt").unlink()
    with pytest.raises(ImageError, match=r"constraints\.txt can't be read: No such file.*Restore the source checkout"):
        agent(checkout)


def test_this_checkout_has_both_images() -> None:
    """The repository that the tests run in can be built from."""
    assert (sources.repository() / "pyproject.toml").is_file()
