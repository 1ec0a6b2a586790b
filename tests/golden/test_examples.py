"""Every example, and the whole set of manifests that it becomes.

``UPDATE_GOLDEN=1 pytest tests/golden`` renews the files; the diff is what a change to the builders means for agents.
"""

import hashlib
import json
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_model_in_the_repository(example: Path) -> None:
    """Each example's digest is that of examples/models/intent, so that it works as it stands once that is published."""
    model = yaml.safe_load(example.read_text())["spec"].get("model")
    manifest = (example.parent / "models" / "intent" / "manifest.json").read_bytes()
    if model is not None:
        assert model["version"] == json.loads(manifest)["version"]
        assert model["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}", "write this digest into the example"


def test_the_first_example_is_what_a_production_team_would_have_written() -> None:
    """Three to twenty pods at 70 % CPU, a Service on port 80, a model from S3, and the database from a Secret."""
    by_kind = {one["kind"]: one for one in render(EXAMPLES[0])}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    assert container["resources"] == {
        "requests": {"memory": "512Mi", "cpu": "500m"},
        "limits": {"memory": "1Gi", "cpu": "1"},
    }
    assert container["ports"][0]["containerPort"] == 8080
    assert env["MODEL_BUCKET"] == "s3://models/intent"
    assert env["CONFIG_FILE"] == "agent_config.json"
    assert env["DATABASE_URL"] == {"secretKeyRef": {"name": "postgres-credentials", "key": "DATABASE_URL"}}
    service = by_kind["Service"]["spec"]
    assert service["type"] == "ClusterIP"
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "http")]
    scaling = by_kind["HorizontalPodAutoscaler"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (3, 20)
    assert scaling["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70},
    }
    agent = yaml.safe_load(EXAMPLES[0].read_text())
    agent["metadata"] |= {"namespace": "support", "uid": "u"}
    assert children(parse(agent)).first_replicas == 3


def test_every_golden_file_has_its_example() -> None:
    """No golden file is left from an example that is gone."""
    assert sorted(path.name for path in GOLDEN.glob("*.yaml")) == [path.name for path in EXAMPLES]
