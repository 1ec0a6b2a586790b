"""Every example, and the whole set of manifests that it becomes.

``UPDATE_GOLDEN=1 pytest tests/golden`` renews the files; the diff is what a change to the builders means for agents.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import parse
from supportfleet_operator.api.crd import to_yaml
from supportfleet_operator.resources import children

GOLDEN = Path(__file__).parent
EXAMPLES = sorted((GOLDEN.parent.parent / "examples").glob("[0-9]*.yaml"))


def render(example: Path) -> list[dict[str, Any]]:
    """The example's manifests, as if it was applied to the namespace ``support``."""
    agent = yaml.safe_load(example.read_text())
    agent["metadata"] |= {"namespace": "support", "uid": "00000000-0000-4000-8000-000000000000"}
    return list(children(parse(agent)))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_its_golden_manifests(example: Path) -> None:
    """What an example becomes is what its golden file shows, in the order in which it is applied."""
    golden = GOLDEN / example.name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(f"# What examples/{example.name} becomes.\n" + to_yaml(*render(example)))
    assert list(yaml.safe_load_all(golden.read_text())) == render(example)


def test_every_golden_file_has_its_example() -> None:
    """No golden file is left from an example that is gone."""
    assert sorted(path.name for path in GOLDEN.glob("*.yaml")) == [path.name for path in EXAMPLES]
