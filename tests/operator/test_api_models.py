"""How the operator reads a SupportAgent: defaults, refusals, and what it tells of them."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import InvalidSupportAgentError, Problem, parse
from supportfleet_operator.api.crd import schema
from supportfleet_operator.api.rules import VALIDATIONS
from supportfleet_operator.api.schema import Schema

merged = runpy.run_path(str(Path(__file__).parent.parent / "merge_patch.py"))["merged"]
REFUSALS, ACCEPTANCES, CHANGES = (
    yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text())
    for name in ("refusals", "acceptances", "changes")
)

MODEL = {"uri": "s3://models/intent", "version": "1", "digest": f"sha256:{'a' * 64}"}


def smallest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": "agent", "namespace": "shop", "uid": "u-1"},
        "spec": {"template": {"image": "agent:1"}, **spec},
    }


def problems(obj: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(InvalidSupportAgentError) as caught:
        parse(obj)
    return caught.value.problems


def test_the_smallest_agent_is_complete_by_defaults() -> None:
    """An image is all that an agent needs; the rest has defaults."""
    spec = parse(smallest()).spec
    assert spec.replicas == 1
    assert spec.template.port == 8080
    assert spec.template.termination_grace_period_seconds == 45
    assert spec.service.port == 80
    assert spec.llm.provider == "Auto"
    assert spec.network_policy.enabled
    assert (spec.model, spec.database, spec.autoscaling) == (None, None, None)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case["name"])
def test_what_is_wrong_is_refused_at_its_field(case: dict[str, Any]) -> None:
    """Every bad example is refused at the field that is wrong, by rules with the message that users read."""
    base = smallest(model=MODEL) if "model" in case.get("spec", {}) else smallest()
    bad = merged(base, {"spec": case.get("spec", {}), "metadata": case.get("metadata", {})})
    found = problems(bad)
    assert [problem.path for problem in found] == [case["path"]]
    if not case.get("schema"):
        assert case["message"] in found[0].message


@pytest.mark.parametrize("case", ACCEPTANCES, ids=lambda case: case["name"])
def test_what_is_right_is_accepted(case: dict[str, Any]) -> None:
    """What is close to a limit, but within it, is no problem."""
    base = smallest(model=MODEL) if "model" in case.get("spec", {}) else smallest()
    parse(merged(base, {"spec": case.get("spec", {}), "metadata": case.get("metadata", {})}))


def test_every_rule_has_an_example_of_what_it_refuses() -> None:
    """No rule goes untried: for each there is a bad example with its message."""
    tried = [case["message"] for case in REFUSALS]
    tried += [case["message"] for case in CHANGES if "message" in case]
    rules = {rule["message"]: rule for rule in _rules(schema())}
    reserved = "is set by the operator; set the field of the SupportAgent that it comes from"
    assert reserved in rules
    missing = [text for text in rules if text != reserved and not any(message in text for message in tried)]
    assert missing == []


def _rules(node: Schema) -> list[dict[str, str]]:
    found = list(node.get(VALIDATIONS, ()))
    for child in [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]:
        found += _rules(child) if child else []
    return found


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Several mistakes give several problems, each with its path."""
    bad = smallest(replicas=-1, model={**MODEL, "digest": "x", "version": "/"}, unknown=1)
    assert {problem.path for problem in problems(bad)} == {
        "spec.replicas",
        "spec.model.digest",
        "spec.model.version",
        "spec.unknown",
    }


def test_the_error_reads_as_a_sentence() -> None:
    """The error's text names each field with what is wrong."""
    with pytest.raises(InvalidSupportAgentError, match=r"^spec.replicas: more than one pod needs spec.database"):
        parse(smallest(replicas=2))


def test_a_status_of_a_newer_operator_is_read() -> None:
    """Unknown status fields are passed over, since an older operator must start beside what a newer one wrote."""
    agent = parse({**smallest(), "status": {"phase": "Ready", "stableRevision": "abc"}})
    assert agent.status.phase == "Ready"


def test_an_agent_of_another_kind_is_refused() -> None:
    """Nothing but a SupportAgent of this version is read as one."""
    assert problems({**smallest(), "kind": "Deployment"})[0].path == "kind"
    assert problems({**smallest(), "apiVersion": "supportfleet.dev/v2"})[0].path == "apiVersion"


@pytest.mark.parametrize("ending", ["\n", "\u0660", " "])
def test_patterns_end_where_the_text_ends(ending: str) -> None:
    """A line break, a digit of another script or a space after a valid text is no valid text."""
    for field, value in (("digest", MODEL["digest"]), ("version", "1"), ("uri", "s3://models")):
        if (field, ending) != ("uri", "\u0660"):
            assert problems(smallest(model={**MODEL, field: value + ending}))[0].path == f"spec.model.{field}"


def test_a_manifest_is_what_was_given() -> None:
    """A part of the spec comes back as it was given, without what is unset or empty."""
    given = {
        "name": "A",
        "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}},
    }
    agent = parse(smallest(template={"image": "agent:1", "env": [given, {"name": "B", "value": ""}]}))
    assert [env.manifest() for env in agent.spec.template.env or ()] == [given, {"name": "B"}]


def test_models_can_not_be_changed() -> None:
    """An agent that was read stays as it was read."""
    agent = parse(smallest())
    with pytest.raises(ValueError, match="frozen"):
        agent.spec.replicas = 3  # type: ignore[misc]


def test_the_most_pods_an_agent_can_have() -> None:
    """The most pods come from the autoscaler where there is one, and are none for a suspended agent."""
    database = {"secretRef": {"name": "db"}}
    assert parse(smallest()).spec.max_pods == 1
    assert parse(smallest(database=database, autoscaling={"maxReplicas": 7})).spec.max_pods == 7
    assert parse(smallest(database=database, replicas=3, suspend=True)).spec.max_pods == 0
