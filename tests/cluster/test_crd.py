"""The CustomResourceDefinition in a real API server: what it refuses, what it fills in, and how it reads."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, given, settings

from supportfleet_operator.api import (
    AnalysisOutcome,
    Condition,
    ModelStatus,
    RolloutStatus,
    SupportAgent,
    SupportAgentStatus,
    parse,
)
from supportfleet_operator.api.crd import schema
from supportfleet_operator.reconcile.drift import differences
from supportfleet_operator.resources import (
    FIELD_MANAGER,
    Manifest,
    Routing,
    channel_job,
    controller_revision,
    resolved,
    revision_children,
    revision_name,
    shared_children,
)

REPOSITORY = Path(__file__).parent.parent.parent
merged = runpy.run_path(str(REPOSITORY / "tests" / "merge_patch.py"))["merged"]
established = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))["established"]
CASES = REPOSITORY / "tests" / "operator"
REFUSALS, ACCEPTANCES, CHANGES = (
    yaml.safe_load((CASES / f"{name}.yaml").read_text()) for name in ("refusals", "acceptances", "changes")
)
EXAMPLES = sorted((REPOSITORY / "examples").glob("[0-9]*.yaml"))

MODEL = {"uri": "s3://models/intent", "version": "1", "digest": f"sha256:{'a' * 64}"}
CRD = "supportagents.supportfleet.dev"


def smallest(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": name},
        "spec": {"template": {"image": "agent:1"}, **spec},
    }


def example(case: dict[str, Any], number: int) -> dict[str, Any]:
    """The agent of a case, with a name of its own unless the case is about names."""
    name = case.get("metadata", {}).get("name", f"case-{number}")
    base = smallest(name, model=MODEL) if "model" in case.get("spec", {}) else smallest(name)
    agent: dict[str, Any] = merged(base, {"spec": case.get("spec", {})})
    return agent


def children(given: SupportAgent) -> list[Manifest]:
    """What an agent becomes at its first revision, but for what routes it, which test_route_schemas.py tries."""
    agent = resolved(given, MODEL["version"], MODEL["digest"])
    asked = [] if agent is given else [channel_job(given, 1)]
    revision, model = revision_name(agent), agent.spec.model
    routing = Routing({revision: 100}, matched=revision, service=revision)
    shared = shared_children(agent, routing, model.artifact if model is not None and model.hot else None)
    own = revision_children(agent, revision, replicas=agent.spec.first_pods, autoscaled=True)
    everything = [controller_revision(agent, 1), *shared, *asked, *(one for one in own if one is not own.model_claim)]
    return [one for one in everything if one["kind"] not in {"VirtualService", "DestinationRule", "HTTPRoute"}]


@pytest.fixture(scope="module")
def cluster(control_plane: Any) -> Any:
    """The control plane with the definition, installed as users install it."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(REPOSITORY / "crds"))
    established(control_plane, {CRD: "SupportAgent"})
    return control_plane


@pytest.fixture(scope="module")
def refusals(cluster: Any) -> dict[str, str]:
    """What the API server says of each bad example: one kubectl sends them all."""
    agents = [example(case, number) for number, case in enumerate(REFUSALS)]
    sent = cluster.kubectl(
        *("create", "--validate=false", "--dry-run=server", "--namespace=default", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": agents}),
        check=False,
    )
    by_name = dict(re.findall(r'SupportAgent\.supportfleet\.dev "([^"]+)" is invalid: (.*)', sent.stderr))
    return {
        case["name"]: by_name.get(agent["metadata"]["name"], "") for case, agent in zip(REFUSALS, agents, strict=True)
    }


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case["name"])
def test_a_bad_agent_is_refused_with_its_field_and_the_remedy(case: dict[str, Any], refusals: dict[str, str]) -> None:
    """At admission every bad example gets the path of its field and what is allowed instead."""
    answer = refusals[case["name"]]
    assert f"{case.get('admissionPath', case['path'])}: " in answer
    assert case["message"] in answer


def test_a_good_agent_is_accepted(cluster: Any) -> None:
    """What is close to a limit, but within it, is let through."""
    agents = [example(case, number) for number, case in enumerate(ACCEPTANCES)]
    cluster.kubectl(
        *("create", "--dry-run=server", "--namespace=default", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": agents}),
    )


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case["name"])
def test_a_change_is_judged_by_what_was_there(case: dict[str, Any], cluster: Any, namespace: str) -> None:
    """What can't change on a claim that exists is refused with the way around; all other changes are accepted."""
    agent = smallest("agent", model=merged(MODEL, case["before"]))
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(agent))
    patch = json.dumps({"spec": {"model": case["after"]}})
    changed = cluster.kubectl("-n", namespace, "patch", "supa", "agent", "--type=merge", "-p", patch, check=False)
    if "message" in case:
        assert f"{case['path']}: " in changed.stderr
        assert case["message"] in changed.stderr
    assert (changed.returncode == 0) == ("message" not in case), changed.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted_and_so_is_all_it_becomes(path: Path, cluster: Any, namespace: str) -> None:
    """The API server takes each example's children with no warning under restricted Pod Security, as they are.

    Once applied, nothing in a child differs from what was rendered, and applying it again changes nothing.
    """
    for mode in ("enforce", "warn"):
        cluster.kubectl("label", "namespace", namespace, f"pod-security.kubernetes.io/{mode}=restricted")
    cluster.kubectl("-n", namespace, "create", "-f", str(path))
    (stored,) = cluster.get("-n", namespace, "supportagents")["items"]
    rendered = list(children(parse(stored)))
    first = applied(cluster, namespace, rendered)
    for wanted, live in zip(rendered, first, strict=True):
        assert differences(wanted, live) == []
    again = applied(cluster, namespace, rendered)
    assert [live["metadata"]["managedFields"][0] for live in again] == [
        live["metadata"]["managedFields"][0] for live in first
    ]
    for one in rendered:
        if one["kind"] in {"Deployment", "Job"}:
            pod = {**head("v1", "Pod", "trial"), "spec": one["spec"]["template"]["spec"]}
            cluster.kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def applied(cluster: Any, namespace: str, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Apply manifests as the operator does, a warning being an error, and return what the API server stored."""
    done = cluster.kubectl(
        *("-n", namespace, "apply", "--server-side", "--field-manager", FIELD_MANAGER),
        *("--warnings-as-errors", "--show-managed-fields", "-o", "json", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
    )
    stored: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return stored


def head(api_version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}


def test_whatever_is_valid_becomes_what_the_api_server_takes(cluster: Any, namespace: str) -> None:
    """The children of any valid agent are accepted, with no warning."""
    manifests: list[dict[str, Any]] = []

    @settings(max_examples=40, database=None, deadline=None, phases=[Phase.generate])
    @given(runpy.run_path(str(CASES / "agent_strategies.py"))["AGENTS"])
    def collect(agent: SupportAgent) -> None:
        renamed = {"name": f"agent-{len(manifests)}", "namespace": namespace}
        manifests.extend(children(agent.model_copy(update={"metadata": agent.metadata.model_copy(update=renamed)})))

    collect()
    cluster.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
        timeout=120,
    )


def test_defaults_are_filled_in(cluster: Any, namespace: str) -> None:
    """What the API server makes of the smallest agent is what the operator reads into it."""
    minimal = smallest("agent")
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(minimal))
    stored = cluster.get("-n", namespace, "supa", "agent")
    assert stored["spec"]["llm"] == {"provider": "Auto", "timeoutSeconds": 20, "maxTokens": 1024}
    minimal["metadata"] = stored["metadata"]
    assert parse(stored).spec == parse(minimal).spec


def test_an_agent_that_nobody_has_seen_is_for_no_generation(cluster: Any, namespace: str) -> None:
    """Until the operator has looked, and where it has written but a part, the status is older than any spec."""
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(smallest("agent")))
    assert cluster.get("-n", namespace, "supa", "agent")["status"] == {"observedGeneration": -1}
    patch = json.dumps({"status": {"rollout": {"phase": "Idle"}}})
    cluster.kubectl("-n", namespace, "patch", "supa", "agent", "--subresource=status", "--type=merge", "-p", patch)
    assert cluster.get("-n", namespace, "supa", "agent")["status"]["observedGeneration"] == -1


def test_an_unknown_field_is_refused(cluster: Any, namespace: str) -> None:
    """A misspelt field is refused by kubectl, which names it, and not silently dropped."""
    misspelt = json.dumps(smallest("agent", replica=2))
    answer = cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=misspelt, check=False)
    assert answer.returncode != 0
    assert 'unknown field "spec.replica"' in answer.stderr


def test_the_configuration_is_kept_as_it_is(cluster: Any, namespace: str) -> None:
    """spec.config is a free object: nothing in it is pruned."""
    config = {"greeting": "Hello", "deep": {"list": [1, {"x": True}]}}
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(smallest("agent", config=config)))
    assert cluster.get("-n", namespace, "supa", "agent")["spec"]["config"] == config


def test_it_is_scaled_like_a_deployment(cluster: Any, namespace: str) -> None:
    """`kubectl scale` changes spec.replicas, within the same rules."""
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(smallest("agent")))
    scale = ("-n", namespace, "scale", "supa/agent")
    assert "more than one pod needs spec.database" in cluster.kubectl(*scale, "--replicas=3", check=False).stderr
    cluster.kubectl(*scale, "--replicas=0")
    assert cluster.get("-n", namespace, "supa", "agent")["spec"]["replicas"] == 0


def test_its_state_shows_in_a_list(cluster: Any, namespace: str) -> None:
    """The columns show what the status says, `kubectl get all` lists agents, and `kubectl wait` sees a condition."""
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(smallest("agent")))
    ready = Condition(
        type="Ready",
        status="True",
        reason="Available",
        message="all pods are ready",
        last_transition_time="2026-11-21T08:00:00Z",
        observed_generation=1,
    )
    model = ModelStatus(
        version="7",
        digest=MODEL["digest"],
        channel="stable",
        channel_version="7",
        channel_digest=MODEL["digest"],
        channel_checked_at="2026-11-21T08:00:00Z",
    )
    rollout = RolloutStatus(
        phase="Stepping",
        stable_revision="raaaaaaa",
        canary_revision="rbbbbbbb",
        current_weight=10,
        current_mirror=5,
        sticky_revisions=("rccccccc",),
        retiring={"rccccccc": "2026-11-21T08:00:00Z"},
        current_step=0,
        step_started_at="2026-11-21T08:00:00Z",
        last_analysis=(
            AnalysisOutcome(metric="errorRate", verdict="Pass", value=0, threshold=0.02, samples=31),
            AnalysisOutcome(metric="happiness", verdict="NoData", message="Prometheus has no such series"),
        ),
        baseline={"agent-rbbbbbbb-x": {"requests": 12, "errors": 0, "le_0.5": 11.0}},
    )
    status = SupportAgentStatus(
        observed_generation=1,
        phase="Ready",
        replicas=3,
        ready_replicas=2,
        model=model,
        rollout=rollout,
        conditions=(ready,),
    )
    patch = json.dumps({"status": status.manifest()})
    cluster.kubectl("-n", namespace, "patch", "supa", "agent", "--subresource=status", "--type=merge", "-p", patch)
    names, values = cluster.kubectl("-n", namespace, "get", "supa").stdout.splitlines()
    assert names.split() == [
        "NAME",
        "READY",
        "PHASE",
        "REPLICAS",
        "SERVING",
        "MODEL",
        "STABLE",
        "CANARY",
        "WEIGHT",
        "AGE",
    ]
    assert values.split()[:9] == ["agent", "True", "Ready", "3", "2", "7", "raaaaaaa", "rbbbbbbb", "10"]
    assert parse(cluster.get("-n", namespace, "supa", "agent")).status == status
    wide = cluster.kubectl("-n", namespace, "get", "supa", "-o", "wide").stdout
    assert all(text in wide for text in ("Available", "agent:1", MODEL["digest"], "all pods are ready"))
    assert "supportagent.supportfleet.dev/agent" in cluster.kubectl("-n", namespace, "get", "all").stdout
    cluster.kubectl("-n", namespace, "wait", "supa/agent", "--for=condition=Ready", "--timeout=5s")


def test_explain_names_every_field(cluster: Any) -> None:
    """`kubectl explain` knows the whole spec, and tells what each of its fields does."""
    shown = cluster.kubectl("explain", "supportagent.spec").stdout
    for name, field in schema()["properties"]["spec"]["properties"].items():
        assert re.search(rf"^  {name}\t", shown, re.MULTILINE), name
        assert field["description"].split()[0] in shown
    everything = cluster.kubectl("explain", "supportagent", "--recursive").stdout
    for name in ("targetQueueDepth", "apiKeySecretRef", "storageClassName", "allowFromNamespaces", "loadedPods"):
        assert name in everything
