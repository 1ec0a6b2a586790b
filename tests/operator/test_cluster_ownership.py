"""Who holds which field: hand edits are told from other controllers, and absorbed without touching anything else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.cluster import ownership

OWN = "supportfleet-operator"
RESTART = {
    "f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}}
}


def entry(manager: str, fields: dict[str, Any], operation: str = "Update", **more: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsV1": fields, **more}


def ours(fields: dict[str, Any]) -> dict[str, Any]:
    return entry(OWN, fields, "Apply")


@pytest.mark.parametrize("manager", ["kubectl", "kubectl-edit", "kubectl-patch", "kubectl-set", "k9s", "oc-edit"])
def test_tools_of_people_are_hand_tools(manager: str) -> None:
    """What a person types or clicks in counts as a hand edit."""
    assert ownership.is_hand_tool(manager)


@pytest.mark.parametrize(
    "manager",
    ["kube-controller-manager", "keda-operator", "istiod", "argocd-controller", "kustomize-controller", "vpa-updater"],
)
def test_controllers_are_not(manager: str) -> None:
    """Other controllers, and tools that apply from Git, are never overridden."""
    assert not ownership.is_hand_tool(manager)


def test_an_edit_of_the_spec_is_a_hand_edit() -> None:
    """An edit of an image by kubectl names kubectl-edit."""
    fields = [ours({"f:spec": {}}), entry("kubectl-edit", {"f:spec": {"f:paused": {}}})]
    assert ownership.hand_edits(fields, replicas_are_ours=True) == ["kubectl-edit"]


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"f:metadata": {"f:labels": {"f:team": {}}}}, {}),
        ({"f:status": {"f:conditions": {}}}, {"subresource": "status"}),
        (RESTART, {}),
    ],
    ids=["label", "status", "rollout restart"],
)
def test_what_changes_nothing_that_runs_is_none(fields: dict[str, Any], more: dict[str, Any]) -> None:
    """Labels, a status and a request to restart are left to people."""
    assert ownership.hand_edits([entry("kubectl-x", fields, **more)], replicas_are_ours=True) == []


def test_replicas_are_a_hand_edit_only_where_they_are_ours() -> None:
    """What kubectl scale did is undone, but not under an autoscaler, to which the number belongs."""
    scaled = [entry("kubectl", {"f:spec": {"f:replicas": {}}}, subresource="scale")]
    assert ownership.hand_edits(scaled, replicas_are_ours=True) == ["kubectl"]
    assert ownership.hand_edits(scaled, replicas_are_ours=False) == []


def test_absorbing_moves_fields_into_our_entry_and_leaves_the_rest() -> None:
    """Afterwards we hold what was set by hand; labels, other managers and the restart stay where they were."""
    before = [
        ours({"f:spec": {"f:replicas": {}}}),
        entry("kube-controller-manager", {"f:status": {"f:replicas": {}}}, subresource="status"),
        entry(
            "kubectl-edit",
            {
                "f:metadata": {"f:labels": {"f:team": {}}},
                "f:spec": {"f:paused": {}, "f:template": {"f:spec": {"f:hostNetwork": {}}}},
            },
        ),
        entry("kubectl-rollout", RESTART),
    ]
    original = copy.deepcopy(before)
    after = ownership.absorb(before, OWN, replicas_are_ours=True)
    assert after == [
        ours({"f:spec": {"f:replicas": {}, "f:paused": {}, "f:template": {"f:spec": {"f:hostNetwork": {}}}}}),
        before[1],
        entry("kubectl-edit", {"f:metadata": {"f:labels": {"f:team": {}}}}),
        before[3],
    ]
    assert before == original


def test_absorbing_leaves_replicas_to_the_autoscaler() -> None:
    """Taking the number over and dropping it would reset it to one."""
    before = [
        ours({"f:spec": {"f:template": {}}}),
        entry("kubectl", {"f:spec": {"f:replicas": {}, "f:paused": {}}}),
    ]
    after = ownership.absorb(before, OWN, replicas_are_ours=False)
    assert after is not None
    assert not ownership.holds_replicas(after, OWN)
    assert after[1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_without_an_entry_of_ours_there_is_nothing_to_absorb_into() -> None:
    """An object that we never applied is applied first."""
    assert ownership.absorb([entry("kubectl-edit", {"f:spec": {"f:paused": {}}})], OWN, replicas_are_ours=True) is None


def test_the_cache_keeps_only_what_decides() -> None:
    """Of our own entry the number of replicas, of hand edits their fields, of others nothing."""
    fields = [
        ours({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}}}),
        entry("kube-controller-manager", {"f:status": {}}, subresource="status"),
        entry("kubectl-edit", {"f:metadata": {"f:labels": {}}, "f:spec": {"f:paused": {}}}),
    ]
    assert ownership.trim(fields, OWN) == [
        {"manager": OWN, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        entry("kubectl-edit", {"f:spec": {"f:paused": {}}}),
    ]


names = st.sampled_from(["f:spec", "f:metadata", "f:a", "f:b", 'k:{"name":"x"}', "f:replicas", "."])
trees = st.recursive(st.just({}), lambda below: st.dictionaries(names, below, max_size=3), max_leaves=12)
managers = st.sampled_from([OWN, "kubectl-edit", "kubectl", "controller"])


@given(
    st.lists(
        st.builds(
            lambda manager, fields: entry(manager, fields, "Apply" if manager == OWN else "Update"), managers, trees
        ),
        max_size=5,
        unique_by=lambda one: one["manager"],
    )
)
def test_absorbing_loses_no_field_and_is_final(fields: list[dict[str, Any]]) -> None:
    """Every field still has a holder, other controllers keep theirs, and a second time there is nothing to absorb."""
    after = ownership.absorb(fields, OWN, replicas_are_ours=True)
    if after is None:
        return
    assert ownership.hand_edits(after, replicas_are_ours=True) == []
    assert [one for one in after if one["manager"] == "controller"] == [
        one for one in fields if one["manager"] == "controller"
    ]
    assert set().union(*(_paths(one["fieldsV1"]) for one in fields), set()) == set().union(
        *(_paths(one["fieldsV1"]) for one in after), set()
    )


def _paths(tree: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = {path} if path else set()
    for name, below in tree.items():
        found |= _paths(below, (*path, name))
    return found
