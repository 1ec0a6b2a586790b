"""The CustomResourceDefinition that is generated from the models."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import parse
from supportfleet_operator.api.crd import definition, generated_files, schema
from supportfleet_operator.api.schema import Schema

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("path", generated_files())
def test_generated_files_are_in_step_with_the_models(path: str) -> None:
    """The definition and the field reference in the repository are what the models give; `make crds` renews them."""
    assert (REPOSITORY / path).read_text(encoding="utf-8") == generated_files()[path]


def test_kustomize_installs_the_definition() -> None:
    """The kustomization lists the generated file."""
    (resource,) = yaml.safe_load((REPOSITORY / "crds" / "kustomization.yaml").read_text())["resources"]
    assert yaml.safe_load((REPOSITORY / "crds" / resource).read_text()) == definition()


def nodes(schema: Schema, path: str = "") -> Any:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


def test_the_schema_is_structural() -> None:
    """Every part has one type, and no keyword that a structural schema forbids."""
    for path, node in nodes(schema()):
        assert ("type" in node) != bool(node.get("x-kubernetes-int-or-string")), path
        assert not node.keys() & {"$ref", "$defs", "allOf", "oneOf", "title", "const", "propertyNames", "nullable"}, (
            path
        )
        assert node.get("additionalProperties") not in (True, False), path


def test_every_field_says_what_it_does() -> None:
    """`kubectl explain` has a sentence for each field, and the default of each that has one."""
    for path, node in nodes(schema()):
        if path in ("", ".metadata", ".metadata.name") or path.endswith("[]"):
            continue
        assert node["description"].endswith("."), path
        if isinstance(node.get("default"), (str, int)):
            assert "Default: " in node["description"], path


def test_everything_that_grows_has_a_bound() -> None:
    """Lists and maps are bounded, and so are texts: the API server prices rules by what could be."""
    for path, node in nodes(schema()["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


def test_defaults_are_those_of_the_models() -> None:
    """What the API server fills in is what the operator assumes."""
    image = {"template": {"image": "agent:1"}}
    metadata = {"name": "a", "namespace": "b", "uid": "c"}
    head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "metadata": metadata}
    filled = with_defaults(image, schema()["properties"]["spec"])
    assert filled["llm"]["timeoutSeconds"] == 20
    assert parse({**head, "spec": filled}).spec == parse({**head, "spec": image}).spec


def with_defaults(value: Any, node: Schema) -> Any:
    """What the API server does with defaults."""
    if isinstance(value, dict) and "properties" in node:
        filled = {name: field["default"] for name, field in node["properties"].items() if "default" in field} | value
        return {name: with_defaults(item, node["properties"][name]) for name, item in filled.items()}
    return value


def test_it_can_be_scaled_and_listed() -> None:
    """`kubectl scale`, `kubectl get all` and the short name work, and columns show the state."""
    spec = definition()["spec"]
    assert spec["names"]["shortNames"] == ["supa"]
    assert "all" in spec["names"]["categories"]
    (version,) = spec["versions"]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    always = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert always == ["Ready", "Phase", "Replicas", "Serving", "Model", "Stable", "Canary", "Weight", "Age"]


def test_an_agent_that_nobody_has_seen_is_not_done() -> None:
    """A status that says nothing is for no generation, so that tools which compare them wait for the operator."""
    status = schema()["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}
    assert status["properties"]["observedGeneration"]["default"] == -1


def test_wide_columns_tell_what_is_under_way() -> None:
    """`kubectl get -o wide` shows the channel that a model follows, and how many requests are copied."""
    (version,) = definition()["spec"]["versions"]
    wide = {one["name"]: one["jsonPath"] for one in version["additionalPrinterColumns"] if one.get("priority")}
    assert wide["Channel"] == ".spec.model.channel"
    assert wide["Mirror"] == ".status.rollout.currentMirror"
