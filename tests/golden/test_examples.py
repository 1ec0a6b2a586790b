"""Every example, and the whole set of manifests that it becomes.

``UPDATE_GOLDEN=1 pytest tests/golden`` renews the files; the diff is what a change to the builders means for agents.
"""

import hashlib
import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.api import Checklist, SupportAgent, parse
from supportfleet_operator.api.crd import to_yaml
from supportfleet_operator.resources import (
    Routing,
    at_revision,
    channel_job,
    checklist_job,
    controller_revision,
    resolved,
    revision_children,
    revision_name,
    shared_children,
    snapshot,
)

Manifest = dict[str, Any]
GOLDEN = Path(__file__).parent
EXAMPLES = sorted((GOLDEN.parent.parent / "examples").glob("[0-9]*.yaml"))
MID_CANARY = GOLDEN / "06-canary-istio-at-10-percent.yaml"
MID_TEST = GOLDEN / "08-gateway-api-abtest-under-way.yaml"
CHECKED = GOLDEN / "06-canary-istio-checklist.yaml"
MODEL = EXAMPLES[0].parent / "models" / "intent" / "manifest.json"


def read(example: Path, image: str | None = None) -> SupportAgent:
    """The example, as if it was applied to the namespace ``support``, with another image or its own."""
    agent = yaml.safe_load(example.read_text())
    agent["metadata"] |= {"namespace": "support", "uid": "00000000-0000-4000-8000-000000000000"}
    if image is not None:
        agent["spec"]["template"]["image"] = image
    return parse(agent)


def first_revision(example: Path) -> list[Manifest]:
    """All that an example becomes once its first revision serves; a channel points at the repository's model."""
    given = read(example)
    follows = given.spec.model is not None and given.spec.model.channel is not None
    agent = resolved(given, *model())
    revision = revision_name(agent)
    routing = Routing(weights={revision: 100}, service=revision)
    hot = agent.spec.model.artifact if agent.spec.model is not None and agent.spec.model.hot else None
    own = revision_children(agent, revision, replicas=agent.spec.first_pods, autoscaled=True)
    asked = [channel_job(given, 1)] if follows else []
    return once([controller_revision(agent, 1), *shared_children(agent, routing, hot), *asked, *own])


def model() -> tuple[str, str]:
    """Version and digest of examples/models/intent."""
    manifest = MODEL.read_bytes()
    return json.loads(manifest)["version"], f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def mid_test() -> list[Manifest]:
    """The routes of the A/B test's example, while group b tries another greeting, as one list."""
    stable = read(EXAMPLES[7])
    canary = stable.model_copy(
        update={"spec": stable.spec.model_copy(update={"config": {"greeting": "Hi! What can I do for you?"}})}
    )
    old, new = revision_name(stable), revision_name(canary)
    routing = Routing(weights={old: 100}, matched=new, service=old, sticky=(new, old))
    route = shared_children(canary, routing).http_route
    assert route is not None
    return [route]


def mid_canary() -> list[Manifest]:
    """The canary's example with image v2, at 10 % of the traffic; v1 is rendered from its snapshot."""
    v1, v2 = (read(EXAMPLES[5], f"supportfleet/agent:{version}") for version in ("v1", "v2"))
    stable, canary = revision_name(v1), revision_name(v2)
    routing = Routing(weights={stable: 90, canary: 10}, matched=canary, service=stable)
    return once(
        [
            controller_revision(v1, 1),
            controller_revision(v2, 2),
            *shared_children(v2, routing),
            *revision_children(at_revision(v2, snapshot(v1)), stable, replicas=3, autoscaled=True),
            *revision_children(v2, canary, replicas=1, autoscaled=True),
        ]
    )


def checked() -> list[Manifest]:
    """The Job that checks the canary's example with image v2, where its rollout has a checklist, as one list."""
    v2 = read(EXAMPLES[5], "supportfleet/agent:v2")
    wanted = {"configMapName": "shop-checklist", "apiKeySecretRef": {"name": "shop-callers"}, "skip": ["rate-limiter"]}
    rollout = v2.spec.rollout.model_copy(update={"checklist": Checklist.model_validate(wanted)})
    agent = v2.model_copy(update={"spec": v2.spec.model_copy(update={"rollout": rollout})})
    assert revision_name(agent) == revision_name(v2), "a checklist is no part of the revision"
    job = checklist_job(agent, revision_name(agent), "2026-11-21T12:00:00+00:00")
    assert job is not None
    return [job]


def once(manifests: list[Manifest]) -> list[Manifest]:
    """Each object once, as it is applied once; those of one name are alike."""
    kept: dict[tuple[str, str], Manifest] = {}
    for manifest in manifests:
        assert kept.setdefault((manifest["kind"], manifest["metadata"]["name"]), manifest) == manifest
    return deepcopy(list(kept.values()))


def check(golden: Path, title: str, rendered: list[Manifest]) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(f"# {title}\n" + to_yaml(*rendered))
    assert list(yaml.safe_load_all(golden.read_text())) == rendered


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_its_golden_manifests(example: Path) -> None:
    """What an example becomes at its first revision is what its golden file shows."""
    title = f"What examples/{example.name} becomes, at its first revision."
    check(GOLDEN / example.name, title, first_revision(example))


def test_a_canary_becomes_its_golden_manifests() -> None:
    """With image v2 at 10 % both revisions have their own set, beta testers get v2, and v1 has not changed at all."""
    rendered = mid_canary()
    check(MID_CANARY, "What examples/06-canary-istio.yaml becomes with image v2, at 10 % of the traffic.", rendered)
    (spec,) = (one["spec"] for one in rendered if one["kind"] == "VirtualService")
    stable, canary = (revision_name(read(EXAMPLES[5], f"supportfleet/agent:{version}")) for version in ("v1", "v2"))
    matched, weighted = spec["http"]
    assert "customer-agent.example.com" in spec["hosts"]
    assert matched["match"] == [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
    assert [one["destination"]["host"] for one in matched["route"]] == [f"customer-agent-{canary}"]
    assert {one["destination"]["host"]: one["weight"] for one in weighted["route"]} == {
        f"customer-agent-{stable}": 90,
        f"customer-agent-{canary}": 10,
    }
    before = [one for one in first_revision(EXAMPLES[5]) if stable in one["metadata"]["name"]]
    assert [one for one in rendered if stable in one["metadata"]["name"]] == before


def test_a_checklist_becomes_its_golden_job() -> None:
    """With a checklist a Job makes the checks on image v2, with its environment, before it has traffic."""
    check(CHECKED, "The Job of examples/06-canary-istio.yaml with image v2 and spec.rollout.checklist.", checked())


def test_an_ab_test_becomes_its_golden_route() -> None:
    """Group b goes to the new revision, customers stay where they were answered, and all others go to the old one."""
    (route,) = mid_test()
    check(MID_TEST, "The route of examples/08-gateway-api-abtest.yaml while group b tries another greeting.", [route])
    matched, sticky, others = route["spec"]["rules"]
    assert matched["matches"][0]["headers"][0]["value"] == r"^(?:(.*;\s*)?group=b(;.*)?)$"
    assert [one["name"] for one in matched["backendRefs"]] == [one["name"] for one in sticky["backendRefs"]]
    assert others["backendRefs"][0]["name"] != matched["backendRefs"][0]["name"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_model_in_the_repository(example: Path) -> None:
    """Each example's digest is that of examples/models/intent, so that it works as it stands once that is published."""
    named = yaml.safe_load(example.read_text())["spec"].get("model")
    if named is not None and "channel" not in named:
        assert (named["version"], named["digest"]) == model(), "write this digest into the example"


def test_the_first_example_is_what_a_production_team_would_have_written() -> None:
    """Three to twenty pods at 70 % CPU, a Service on port 80, a model from S3, and the database from a Secret."""
    manifests = first_revision(EXAMPLES[0])
    by_kind = {one["kind"]: one for one in manifests}
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
    service = next(one["spec"] for one in manifests if one["kind"] == "Service")
    assert service["type"] == "ClusterIP"
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "http")]
    scaling = by_kind["HorizontalPodAutoscaler"]["spec"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (3, 20)
    assert scaling["metrics"][0]["resource"] == {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70},
    }
    assert read(EXAMPLES[0]).spec.first_pods == 3


def test_every_golden_file_has_its_example() -> None:
    """No golden file is left from an example that is gone."""
    assert sorted(path.name for path in GOLDEN.glob("*.yaml")) == sorted(
        [*(path.name for path in EXAMPLES), MID_CANARY.name, MID_TEST.name, CHECKED.name]
    )
