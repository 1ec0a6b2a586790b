"""Routes under the schemas and rules that Istio and the Gateway API publish, in a real API server.

The definitions are installed under groups of this test's own, so that for all others neither of the two is there.
"""

import json
import runpy
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.reconcile.drift import differences
from supportfleet_operator.resources import FIELD_MANAGER, Manifest, Routing, revision_children, shared_children

established: Final = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))["established"]
STRATEGIES: Final = Path(__file__).parent.parent / "operator" / "agent_strategies.py"
GROUPS: Final = {
    "networking.istio.io": "istio.schemas.example.com",
    "gateway.networking.k8s.io": "gateway.schemas.example.com",
}
ROUTES: Final = ("VirtualService", "DestinationRule", "HTTPRoute")

MATCH: Final = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}, "x-tier": {"prefix": "gold."}}}]
BUSY: Final = Routing(
    {"rnew": 30, "rold": 70}, matched="rnew", service="rold", sticky=("rnew", "rold", "rout"), mirror=("rnew", 25)
)
ROUTINGS = st.builds(
    Routing,
    st.integers(0, 100).map(lambda new: {"rnew": new, "rold": 100 - new}),
    matched=st.sampled_from([None, "rnew"]),
    mirror=st.sampled_from([None, ("rnew", 1), ("rnew", 100)]),
    sticky=st.lists(st.integers(0, 20).map("r{:07}".format), max_size=20).map(tuple),
)


def busy_agents() -> list[SupportAgent]:
    """An agent with everything for each provider and each way to stay with a revision."""
    head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
    agents = []
    for provider in ("Istio", "GatewayAPI"):
        for kept in ("cookie", "header"):
            traffic: dict[str, Any] = {"provider": provider, "hosts": ["a.example.com", "*.b.example.com"]}
            traffic |= {"gateways": ["public", "infra/outer"], "stickiness": {kept: {}}}
            rollout = {"strategy": "BlueGreen", "match": MATCH}
            spec = {"template": {"image": "agent:1"}, "traffic": traffic, "rollout": rollout}
            metadata = {"name": f"{provider}-{kept}".lower(), "namespace": "shop", "uid": "u-1"}
            agents.append(parse({**head, "metadata": metadata, "spec": spec}))
    return agents


def routes(agent: SupportAgent, routing: Routing, namespace: str) -> list[Manifest]:
    """What routes an agent, in the groups of this test."""
    found = [*shared_children(agent, routing)]
    for revision in routing.weights:
        found += revision_children(agent, revision, replicas=1, autoscaled=False)
    return [_moved(one, namespace) for one in found if one["kind"] in ROUTES]


def _moved(manifest: Manifest, namespace: str) -> Manifest:
    group, _, version = manifest["apiVersion"].partition("/")
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
    return {**manifest, "apiVersion": f"{GROUPS[group]}/{version}", "metadata": {**metadata, "namespace": namespace}}


def _definition(published: dict[str, Any]) -> dict[str, Any]:
    """The published definition with its schemas and rules, in another group."""
    spec = published["spec"]
    names = {key: spec["names"][key] for key in ("kind", "listKind", "plural", "singular")}
    group = GROUPS[spec["group"]]
    meta = {"name": f"{names['plural']}.{group}"}
    return {**published, "metadata": meta, "spec": {**spec, "group": group, "names": names}, "status": None}


@pytest.fixture(scope="module")
def cluster(control_plane: Any, definitions: list[dict[str, Any]]) -> Any:
    """The control plane with the published definitions."""
    wanted = [_definition(one) for one in definitions]
    assert {one["spec"]["names"]["kind"] for one in wanted} == set(ROUTES)
    send(control_plane, wanted)
    established(control_plane, {one["metadata"]["name"]: one["spec"]["names"]["kind"] for one in wanted})
    yield control_plane
    for one in wanted:
        control_plane.kubectl("delete", f"crd/{one['metadata']['name']}", "--timeout=60s")


def send(cluster: Any, manifests: list[Manifest], *more: str) -> list[Manifest]:
    """Apply as the operator does, an unknown field or a warning being an error; what the API server stored."""
    done = cluster.kubectl(
        *("apply", "--server-side", "--field-manager", FIELD_MANAGER, "--validate=strict", "--warnings-as-errors"),
        *("--show-managed-fields", "-o", "json", "-f", "-", *more),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
        timeout=120,
    )
    answer = json.loads(done.stdout)
    items: list[Manifest] = answer["items"] if answer["kind"] == "List" else [answer]
    return items


def test_routes_are_as_published_and_stay_as_they_are(cluster: Any, namespace: str) -> None:
    """All that routes can hold is accepted; nothing differs from it then, and applying it again changes nothing."""
    wanted = [route for agent in busy_agents() for route in routes(agent, BUSY, namespace)]
    assert {one["kind"] for one in wanted} == set(ROUTES)
    first = send(cluster, wanted)
    for rendered, live in zip(wanted, first, strict=True):
        assert differences(rendered, live) == []
    again = send(cluster, wanted)
    assert [one["metadata"]["resourceVersion"] for one in again] == [
        one["metadata"]["resourceVersion"] for one in first
    ]


def test_whatever_is_decided_becomes_routes_that_are_accepted(cluster: Any, namespace: str) -> None:
    """The routes of any valid agent at any moment of a rollout keep to the published schemas and rules."""
    manifests: list[Manifest] = []

    @settings(max_examples=60, database=None, deadline=None, phases=[Phase.generate])
    @given(runpy.run_path(str(STRATEGIES))["AGENTS"], ROUTINGS)
    def collect(agent: SupportAgent, routing: Routing) -> None:
        metadata = agent.metadata.model_copy(update={"name": f"agent-{len(manifests)}"})
        manifests.extend(routes(agent.model_copy(update={"metadata": metadata}), routing, namespace))

    collect()
    assert {one["kind"] for one in manifests} == set(ROUTES)
    send(cluster, manifests, "--dry-run=server")


def test_what_is_not_published_is_refused(cluster: Any, namespace: str) -> None:
    """The check itself works: a field that the definitions don't know, and a rule that they have, are errors."""
    (route,) = (one for one in routes(busy_agents()[2], BUSY, namespace) if one["kind"] == "HTTPRoute")
    route["spec"]["rules"][0]["weight"] = 1
    with pytest.raises(AssertionError, match="unknown field"):
        send(cluster, [route], "--dry-run=server")
    (route,) = (one for one in routes(busy_agents()[2], BUSY, namespace) if one["kind"] == "HTTPRoute")
    route["spec"]["rules"] *= 5
    with pytest.raises(AssertionError, match="16"):
        send(cluster, [route], "--dry-run=server")
