"""Carrying plans out against a fake API server: one manager, ownership respected, problems kept to their child."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from supportfleet_operator.api import GROUP
from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import (
    AUTOSCALERS,
    CHILDREN,
    CONFIG_MAPS,
    DEPLOYMENTS,
    SERVICES,
    AgentKey,
    ref_of,
    resource_of,
)
from supportfleet_operator.errors import Busy, Conflict
from supportfleet_operator.reconcile import apply as apply_module
from supportfleet_operator.reconcile.apply import Applied, Applier
from supportfleet_operator.reconcile.plan import plan

LABEL = f"{GROUP}/agent"
DATABASE = {"secretRef": {"name": "db"}}


class Stage:
    """An agent whose children live in the fake API server; its pods become ready between the rounds."""

    def __init__(self, api: Any, client: Client, one: Any) -> None:
        self.api, self.one = api, one
        self.cache = Cache(LABEL, lambda key: None)
        self.applier = Applier(client, self.cache, {})

    def look(self) -> None:
        """What the watches would have told: everything that carries the label."""
        for resource in CHILDREN:
            labelled = [
                copy.deepcopy(one) for one in self.api.all(resource) if LABEL in one["metadata"].get("labels", {})
            ]
            self.cache.replace(resource, None, labelled)
        self.one.objects = {ref_of(live): live for live in self.cache.of_agent(AgentKey("shop", "desk"))}
        self.one.settlements = self.applier.settlements
        self.one.rolled_out()

    @property
    def deployment(self) -> Any:
        """The Deployment of the spec's revision, as it is stored."""
        return self.api.get(DEPLOYMENTS, "shop", f"desk-{self.one.revision}")

    async def round(self) -> Applied:
        self.look()
        observed = self.one.observed()
        wanted = plan(observed, self.one.now)
        self.one.agent["status"]["rollout"] = wanted.decision.state.to_status().manifest()
        return await self.applier.carry_out(wanted, observed, self.one.now)

    async def settle(self) -> Applied:
        """Rounds until one does nothing."""
        for _ in range(12):
            self.look()
            observed = self.one.observed()
            wanted = plan(observed, self.one.now)
            if wanted.is_empty and not wanted.moves(observed):
                return Applied()
            last = await self.round()
            if last.problems:
                return last
            self.one.after(60)
        raise AssertionError(f"not at rest: {plan(self.one.observed(), self.one.now)}")


@pytest.fixture
def stage(api: Any, client: Client, world: Any) -> Callable[..., Stage]:
    return lambda **spec: Stage(api, client, world(**spec))


def by_hand(api: Any, manifest: dict[str, Any], manager: str, *path: str, value: Any) -> None:
    """Change a stored object as a person does, with the tool's name on the field."""
    tree = manifest
    fields: dict[str, Any] = {}
    below = fields
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
        below = below.setdefault(f"f:{step}", {})
    tree[path[-1]] = value
    below[f"f:{path[-1]}"] = {}
    manifest["metadata"]["managedFields"].append({"manager": manager, "operation": "Update", "fieldsV1": fields})
    api.put(manifest)


async def test_everything_is_created_and_then_there_is_rest(api: Any, stage: Any) -> None:
    """A second round finds nothing to do, and the API server sees no further write."""
    one = stage(database=DATABASE, autoscaling={"minReplicas": 2, "maxReplicas": 4})
    await one.settle()
    before = len(api.writes())
    assert (await one.round()).written == []
    assert len(api.writes()) == before
    assert one.deployment["spec"]["replicas"] == 2
    assert api.get(AUTOSCALERS, "shop", one.deployment["metadata"]["name"])


async def test_a_hand_edit_is_removed_whole(api: Any, stage: Any) -> None:
    """A changed value is set again and an added field is gone, with nobody else's fields touched."""
    one = stage()
    await one.settle()
    live = api.get(SERVICES, "shop", "desk")
    by_hand(api, live, "kubectl-edit", "spec", "externalName", value="elsewhere")
    by_hand(api, live, "kubectl-edit", "spec", "type", value="ExternalName")
    by_hand(api, live, "mesh", "metadata", "annotations", "mesh", value="on")
    await one.settle()
    after = api.get(SERVICES, "shop", "desk")
    assert after["spec"]["type"] == "ClusterIP"
    assert "externalName" not in after["spec"]
    assert after["metadata"]["annotations"]["mesh"] == "on"


async def test_a_removed_field_of_the_spec_is_removed_from_the_child(api: Any, stage: Any) -> None:
    """What is no longer rendered goes."""
    one = stage(service={"annotations": {"balancer": "internal"}})
    await one.settle()
    assert api.get(SERVICES, "shop", "desk")["metadata"]["annotations"]["balancer"] == "internal"
    one.one.edit(service={})
    await one.settle()
    assert "balancer" not in api.get(SERVICES, "shop", "desk")["metadata"]["annotations"]


async def test_a_new_revision_takes_the_place_of_the_old(api: Any, stage: Any) -> None:
    """It has a Deployment of its own; the old one keeps its template, and its pods go last."""
    one = stage(template={"image": "agent:1", "nodeSelector": {"pool": "x"}})
    await one.settle()
    before = one.deployment["metadata"]["name"]
    one.one.edit(template={"image": "agent:1"})
    await one.settle()
    assert not one.deployment["spec"]["template"]["spec"].get("nodeSelector")
    assert one.deployment["spec"]["replicas"] == 1
    old = api.get(DEPLOYMENTS, "shop", before)
    assert old["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "x"}
    assert old["spec"]["replicas"] == 0
    assert api.get(SERVICES, "shop", "desk")["spec"]["selector"][f"{GROUP}/revision"] == one.one.revision


async def test_another_controllers_field_is_left_and_named(api: Any, stage: Any) -> None:
    """The conflict is a problem of the child, everything else of it is applied, and then there is rest."""
    one = stage()
    await one.settle()
    by_hand(api, api.get(SERVICES, "shop", "desk"), "policy-engine", "spec", "type", value="NodePort")
    one.one.edit(service={"port": 8080})
    found = await one.round()
    (problem,) = found.problems
    assert problem.kind == "FieldConflict"
    assert "policy-engine" in problem.message
    assert "spec.type" in problem.message
    after = api.get(SERVICES, "shop", "desk")
    assert after["spec"]["type"] == "NodePort"
    assert [port["port"] for port in after["spec"]["ports"]] == [8080]
    before = len(api.writes())
    await one.settle()
    assert len(api.writes()) == before


@pytest.mark.parametrize("owner", [None, {"kind": "Deployment", "name": "else", "controller": True, "uid": "x"}])
async def test_a_taken_name_is_left_alone(api: Any, stage: Any, owner: Any) -> None:
    """An object that is not ours stays as it is; the other children are made."""
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "desk", "namespace": "shop"},
        "spec": {"x": 1},
    }
    if owner:
        theirs["metadata"]["ownerReferences"] = [owner]
    stored = api.put(theirs)
    one = stage()
    found = await one.round()
    (problem,) = found.problems
    assert problem.kind == "NameTaken"
    assert api.get(SERVICES, "shop", "desk") == stored
    assert one.deployment


async def test_a_child_of_a_predecessor_is_waited_for(api: Any, stage: Any) -> None:
    """The garbage collector removes it; until then it is nobody's."""
    owner = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "name": "desk", "controller": True}
    metadata = {"name": "desk", "namespace": "shop", "ownerReferences": [{**owner, "uid": "before"}]}
    api.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}})
    (problem,) = (await stage().round()).problems
    assert problem.kind == "BeingReplaced"


async def test_our_own_child_that_lost_its_label_is_taken_back(api: Any, stage: Any) -> None:
    """The watch no longer shows it, but the name is looked up, and its controller is the agent."""
    one = stage()
    await one.settle()
    live = api.get(SERVICES, "shop", "desk")
    live["metadata"]["labels"] = {}
    api.put(live)
    found = await one.round()
    assert [write.ref.kind for write in found.written] == ["Service"]
    assert not found.problems
    assert api.get(SERVICES, "shop", "desk")["metadata"]["labels"][LABEL] == "desk"


async def test_the_number_of_pods_survives_the_hand_over(api: Any, stage: Any) -> None:
    """Adding an autoscaler to five pods leaves five pods, held by nobody who would reset them."""
    one = stage(database=DATABASE, replicas=5)
    await one.settle()
    one.one.edit(autoscaling={"minReplicas": 2, "maxReplicas": 9})
    await one.settle()
    live = one.deployment
    assert live["spec"]["replicas"] == 5
    holders = [
        entry["manager"] for entry in live["metadata"]["managedFields"] if "f:replicas" in str(entry["fieldsV1"])
    ]
    assert holders == [apply_module.HANDOVER]


async def test_the_number_an_autoscaler_left_is_taken_over(api: Any, stage: Any) -> None:
    """With the autoscaler gone the spec's number holds, though the controller's name is still on it."""
    one = stage(database=DATABASE, autoscaling={"minReplicas": 2, "maxReplicas": 9})
    await one.settle()
    by_hand(api, one.deployment, "kube-controller-manager", "spec", "replicas", value=7)
    del one.one.agent["spec"]["autoscaling"]
    one.one.edit(replicas=3)
    assert not (await one.settle()).problems
    assert one.deployment["spec"]["replicas"] == 3


async def test_somebody_elses_autoscaler_keeps_its_number(api: Any, stage: Any) -> None:
    """An autoscaler that we did not make decides, and is named."""
    one = stage(database=DATABASE, replicas=3)
    await one.settle()
    target = {"kind": "Deployment", "name": one.deployment["metadata"]["name"], "apiVersion": "apps/v1"}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"scaleTargetRef": target}}
    api.put({**hpa, "metadata": {"name": "theirs", "namespace": "shop"}})
    by_hand(api, one.deployment, "kube-controller-manager", "spec", "replicas", value=7)
    (problem,) = (await one.round()).problems
    assert problem.kind == "FieldConflict"
    assert one.deployment["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (422, "Refused", "spec.template.spec.affinity: Invalid value"),
        (403, "Forbidden", "exceeded quota: count/deployments.apps"),
    ],
)
async def test_a_refusal_is_a_problem_of_its_child(api: Any, stage: Any, status: int, kind: str, said: str) -> None:
    """The others are written."""
    api.fail(status, method="PATCH", path="/deployments/", body={"message": said, "reason": "x"})
    found = await stage().round()
    (problem,) = found.problems
    assert problem.kind == kind
    assert said in problem.message
    assert api.get(SERVICES, "shop", "desk")


async def test_a_namespace_that_ends_is_left(api: Any, stage: Any) -> None:
    """Nothing can be created in it, and nothing needs to be said."""
    causes = [{"reason": "NamespaceTerminating", "message": "being terminated", "field": "metadata.namespace"}]
    api.fail(403, times=99, method="PATCH", body={"message": "m", "reason": "Forbidden", "details": {"causes": causes}})
    found = await stage().round()
    assert found.problems == []
    assert len([path for method, path in api.writes() if method == "PATCH"]) == 1


@pytest.mark.parametrize(("status", "error"), [(500, Busy), (429, Busy), (503, Busy)])
async def test_a_busy_server_ends_the_round(api: Any, stage: Any, status: int, error: type) -> None:
    """The queue owns the retry."""
    api.fail(status, method="PATCH", path="/services/", body={"message": "later"})
    with pytest.raises(error):
        await stage().round()


async def test_an_object_that_changes_meanwhile_is_tried_again(api: Any, stage: Any) -> None:
    """Absorbing a hand edit is guarded by the version: if it moved on, the round is repeated."""
    one = stage()
    await one.settle()
    config = f"desk-{one.one.revision}-config"
    by_hand(api, api.get(CONFIG_MAPS, "shop", config), "kubectl-edit", "data", "x", value="1")
    api.fail(409, method="PATCH", path="configmaps", body={"message": "modified", "reason": "Conflict"})
    with pytest.raises(Conflict):
        await one.round()
    await one.settle()
    assert "x" not in api.get(CONFIG_MAPS, "shop", config)["data"]


async def test_deleting_spares_what_came_after(api: Any, stage: Any) -> None:
    """A child replaced by another of the same name since the look is not deleted."""
    one = stage(database=DATABASE, replicas=2)
    await one.settle()
    one.look()
    one.one.edit(replicas=1)
    observed = one.one.observed()
    wanted = plan(observed, one.one.now)
    budget = next(removal.ref for removal in wanted.after)
    resource = resource_of({"kind": budget.kind})
    successor = dict(api.get(resource, "shop", budget.name))
    api.remove(resource, "shop", budget.name)
    successor["metadata"] = {**successor["metadata"], "uid": "successor"}
    api.put(successor)
    with pytest.raises(Conflict):
        await one.applier.carry_out(wanted, observed, one.one.now)
    assert api.get(resource, "shop", budget.name)


async def test_outcomes_are_remembered_within_bounds(api: Any, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of settlements does not grow for ever."""
    monkeypatch.setattr(apply_module, "REMEMBERED", 1)
    one = stage()
    await one.settle()
    for name in ("desk", f"desk-{one.one.revision}"):
        by_hand(api, api.get(SERVICES, "shop", name), "policy-engine", "spec", "type", value="theirs")
        one.look()
        await one.round()
    assert len(one.applier.settlements) <= 1
