"""What holds for every valid agent, whatever its spec."""

import json
import re
import runpy
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_operator.api import SupportAgent
from supportfleet_operator.resources import (
    Manifest,
    Routing,
    controller_revision,
    revision_children,
    revision_name,
    shared_children,
)

AGENTS = runpy.run_path(str(Path(__file__).parent / "agent_strategies.py"))["AGENTS"]


def children(agent: SupportAgent) -> list[Manifest]:
    """Everything of an agent with one revision; the claim is the same object twice, and counts once."""
    revision = revision_name(agent)
    own = revision_children(agent, revision, replicas=agent.spec.first_pods, autoscaled=True)
    model = agent.spec.model
    hot = model.artifact if model is not None and model.hot else None
    shared = shared_children(agent, Routing({revision: 100}, matched=revision, service=revision), hot)
    assert own.model_claim is None or own.model_claim == shared.model_claim
    return [controller_revision(agent, 1), *shared, *(one for one in own if one is not own.model_claim)]


@settings(max_examples=150, deadline=None)
@given(AGENTS)
def test_rendering_is_repeatable_and_leaves_no_trace(agent: SupportAgent) -> None:
    """The same agent gives equal manifests that share nothing: changing one changes neither the next nor the agent."""
    before = agent.model_dump_json()
    first, second = list(children(agent)), list(children(agent))
    assert first == second
    kept = deepcopy(second)
    for manifest in first:
        scribble(manifest)
    assert second == kept
    assert list(children(agent)) == kept
    assert agent.model_dump_json() == before


def scribble(value: Any) -> None:
    """Change everything that can be changed."""
    for item in list(value.values()) if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            scribble(item)
    value.clear()


@settings(max_examples=150, deadline=None)
@given(AGENTS)
def test_manifests_are_plain_and_named_within_limits(agent: SupportAgent) -> None:
    """Manifests are JSON without nulls; names and labels fit in 63 characters, and no two children collide."""
    rendered = list(children(agent))
    assert json.loads(json.dumps(rendered)) == rendered
    assert len({(one["kind"], one["metadata"]["name"]) for one in rendered}) == len(rendered)
    for one in rendered:
        assert None not in list(nested(one))
        assert len(one["metadata"]["name"]) <= 63
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", one["metadata"]["name"])
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())


@settings(max_examples=150, deadline=None)
@given(AGENTS)
def test_every_pod_is_restricted(agent: SupportAgent) -> None:
    """Every container of every pod passes Pod Security's restricted level, and can write to named volumes only."""
    for manifest in children(agent):
        if manifest["kind"] not in {"Deployment", "Job"}:
            continue
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert {mount["name"] for mount in container["volumeMounts"]} <= {one["name"] for one in pod["volumes"]}


@settings(max_examples=150, deadline=None)
@given(AGENTS, st.integers(0, 60), st.booleans())
def test_the_replicas_have_one_owner(agent: SupportAgent, pods: int, autoscaled: bool) -> None:  # noqa: FBT001 - drawn
    """Either the Deployment says how many pods there are or an autoscaler does, never both and never neither."""
    rendered = revision_children(agent, "r0123456", replicas=pods, autoscaled=autoscaled)
    assert ("replicas" in rendered.deployment["spec"]) == (rendered.autoscaler is None)
    if rendered.autoscaler is not None:
        bounds = rendered.autoscaler["spec"]
        assert 1 <= bounds["minReplicas"] <= rendered.first_replicas <= bounds["maxReplicas"]
    else:
        assert rendered.deployment["spec"]["replicas"] == (0 if agent.spec.suspend else pods)


@settings(max_examples=150, deadline=None)
@given(AGENTS)
def test_no_empty_list_is_sent(agent: SupportAgent) -> None:
    """The API server drops empty lists; one that is sent would look like a difference for ever."""
    for manifest in children(agent):
        if manifest["kind"] != "ControllerRevision":  # it keeps what users wrote, word for word
            assert [] not in list(nested(manifest))


def nested(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nested(item)
