"""Revisions: what makes one, and how an old one is had again."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from supportfleet_operator.api import InvalidSupportAgentError, SupportAgent, parse
from supportfleet_operator.resources import (
    at_revision,
    controller_revision,
    revision_children,
    revision_name,
    snapshot,
)

AGENTS = runpy.run_path(str(Path(__file__).parent / "agent_strategies.py"))["AGENTS"]
MODEL = {"uri": "s3://models/intent", "version": "1", "digest": f"sha256:{'a' * 64}"}
CLAIM = {"type": "PersistentVolumeClaim", "size": "1Gi"}
BASE: dict[str, Any] = {
    "template": {"image": "agent:1"},
    "database": {"secretRef": {"name": "db"}},
    "model": MODEL,
}


def agent(**spec: Any) -> SupportAgent:
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "helper", "namespace": "shop", "uid": "u-1"},
            "spec": {**BASE, **spec},
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        {"template": {"image": "agent:2"}},
        {"template": {"image": "agent:1", "env": [{"name": "A", "value": "b"}]}},
        {"template": {"image": "agent:1", "resources": {"limits": {"memory": "2Gi"}}}},
        {"template": {"image": "agent:1", "topologySpreadConstraints": []}},
        {"model": {**MODEL, "version": "2"}},
        {"model": {**MODEL, "digest": f"sha256:{'b' * 64}"}},
        {"model": {**MODEL, "endpoint": "http://s3:9000"}},
        {"model": {**MODEL, "cache": CLAIM}},
        {"model": {**MODEL, "cache": {"size": "2Gi"}}},
        {"config": {"greeting": "Hello"}},
        {"config": {"a": None}},
        {"llm": {"model": "claude-x"}},
        {"database": {"secretRef": {"name": "other"}}},
    ],
)
def test_what_changes_behaviour_is_another_revision(change: dict[str, Any]) -> None:
    """Image, environment, resources, placement, model, configuration, language model and database each make one."""
    assert revision_name(agent(**change)) != revision_name(agent())


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"suspend": True},
        {"autoscaling": {"maxReplicas": 9}},
        {"service": {"port": 81}},
        {"availability": {"minAvailable": 1}},
        {"networkPolicy": {"enabled": False}},
        {"rollout": {"strategy": "Canary", "steps": [{"setWeight": 10}]}},
        {"traffic": {"provider": "Istio"}},
    ],
)
def test_how_much_and_how_reached_is_the_same_revision(change: dict[str, Any]) -> None:
    """Size, traffic, protection and the rollout itself can change in the middle of a rollout, and start none."""
    assert revision_name(agent(**change)) == revision_name(agent())


@pytest.mark.parametrize("more", [{"size": "9Gi"}, {"storageClassName": "fast"}, {"accessModes": ["ReadWriteMany"]}])
def test_a_claim_that_grows_is_the_same_revision(more: dict[str, Any]) -> None:
    """What describes the claim that revisions share replaces no pod."""
    before, after = (agent(model={**MODEL, "cache": cache}) for cache in (CLAIM, {**CLAIM, **more}))
    assert revision_name(before) == revision_name(after)


def test_a_default_that_is_written_out_is_the_same_revision() -> None:
    """What the API server fills in, and fields that a newer version adds with a default, start no rollout."""
    written = {"llm": {"provider": "Auto", "timeoutSeconds": 20, "maxTokens": 1024}, "config": {}}
    written["template"] = {"image": "agent:1", "port": 8080, "imagePullPolicy": "IfNotPresent"}
    assert revision_name(agent(**written)) == revision_name(agent())


def test_names_last() -> None:
    """A revision's name is stored in clusters: a version that names them in another way would roll out every agent."""
    assert revision_name(agent()) == "r63322be"


@settings(max_examples=100, deadline=None)
@given(AGENTS)
def test_a_snapshot_gives_the_revision_again(wanted: SupportAgent) -> None:
    """Through JSON and back, under any other spec, a revision has the same name and the same pods and settings."""
    kept = json.loads(json.dumps(snapshot(wanted)))
    other = agent(
        template={"image": "other:9", "labels": {"b": "c"}}, config={"x": 1}, llm={"maxTokens": 7}, model=None
    ).model_copy(update={"metadata": wanted.metadata})
    again = at_revision(other, kept)
    revision = revision_name(wanted)
    assert revision_name(again) == revision
    pods_of = {"Deployment", "ConfigMap", "Job"}
    mine, theirs = (
        [one for one in revision_children(of, revision, replicas=2, autoscaled=False) if one["kind"] in pods_of]
        for of in (wanted, again)
    )
    if not wanted.spec.suspend:
        assert mine == theirs
    assert again.spec.service == other.spec.service
    assert again.spec.rollout == other.spec.rollout


def test_a_revision_keeps_the_claim_as_it_is_now() -> None:
    """An old revision on the shared claim has it as the spec does now; a claim that only it has stays as it was."""
    old = agent(model={**MODEL, "cache": CLAIM})
    now = agent(model={**MODEL, "version": "2", "cache": {**CLAIM, "size": "9Gi"}})
    again = at_revision(now, snapshot(old))
    assert again.spec.model is not None
    assert (again.spec.model.version, again.spec.model.cache.size) == ("1", "9Gi")
    back = at_revision(agent(), snapshot(old))
    assert back.spec.model is not None
    assert (back.spec.model.cache.type, back.spec.model.cache.size) == ("PersistentVolumeClaim", "1Gi")


def test_a_revision_is_kept_as_a_controller_revision() -> None:
    """It carries the revision's name, its number, and all that it takes to render it again."""
    kept = controller_revision(agent(), 7)
    revision = revision_name(agent())
    assert kept["metadata"]["name"] == f"helper-{revision}"
    assert kept["metadata"]["labels"]["supportfleet.dev/revision"] == revision
    assert kept["revision"] == 7
    assert at_revision(agent(template={"image": "agent:2"}), kept["data"]) == agent()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"spec": BASE},
        {"spec": {}, "agent_config.json": "{}"},
        {"spec": {**BASE, "telepathy": True}, "agent_config.json": "{}"},
    ],
)
def test_a_snapshot_that_can_not_be_read_is_refused(data: dict[str, Any]) -> None:
    """Half of a revision is never rendered: what is missing or unknown in a snapshot is said."""
    with pytest.raises(InvalidSupportAgentError):
        at_revision(agent(), data)
