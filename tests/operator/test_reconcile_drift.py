"""Comparing a manifest with a live object: whatever the API server adds is no difference, whatever changed is one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.reconcile.drift import differences


def paths(desired: Any, live: Any) -> list[str]:
    return [one.path for one in differences(desired, live)]


class TestDifferences:
    def test_defaults_of_the_server_are_none(self) -> None:
        """More fields, and more items in lists with identities, are other managers' business."""
        desired = {
            "spec": {"containers": [{"name": "agent", "image": "a"}], "volumes": [{"name": "tmp", "emptyDir": {}}]}
        }
        live = {
            "spec": {
                "containers": [{"name": "mesh"}, {"name": "agent", "image": "a", "terminationMessagePath": "/dev/x"}],
                "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "token"}],
                "dnsPolicy": "ClusterFirst",
            },
            "status": {},
        }
        assert paths(desired, live) == []

    def test_a_changed_value_is_named(self) -> None:
        """The path leads to the field, through the container's name."""
        desired = {"spec": {"containers": [{"name": "agent", "image": "a"}]}}
        live = {"spec": {"containers": [{"name": "agent", "image": "b"}]}}
        (found,) = differences(desired, live)
        assert found.path == "spec.containers[agent].image"
        assert found.live == "b"

    @pytest.mark.parametrize(
        "live",
        [{}, {"spec": {}}, {"spec": {"containers": []}}, {"spec": {"containers": [{"name": "x"}]}}, {"spec": None}],
    )
    def test_what_is_missing_is_a_difference(self, live: Any) -> None:
        """An absent container, list or object differs."""
        assert paths({"spec": {"containers": [{"name": "agent"}]}}, live)

    def test_a_list_without_identity_is_one_value(self) -> None:
        """One rule more in a network policy, or another order of arguments, is a difference."""
        assert paths({"args": ["serve"]}, {"args": ["serve", "--debug"]}) == ["args"]
        assert paths({"args": ["a", "b"]}, {"args": ["b", "a"]}) == ["args[0]", "args[1]"]
        assert paths({"ingress": [{}]}, {"ingress": [{}, {}]}) == ["ingress"]

    def test_items_of_such_a_list_may_have_defaults(self) -> None:
        """The API server fills in items too."""
        assert paths({"from": [{"podSelector": {}}]}, {"from": [{"podSelector": {}, "x": 1}]}) == []

    @pytest.mark.parametrize(
        ("desired", "live"),
        [("0.5", "500m"), ("1024Mi", "1Gi"), (1, "1"), ("1000m", 1), ("1e3", "1k")],
    )
    def test_quantities_compare_by_value(self, desired: Any, live: Any) -> None:
        """However a quantity is written, it is the same amount."""
        assert paths({"resources": {"limits": {"cpu": desired}}}, {"resources": {"limits": {"cpu": live}}}) == []
        assert paths({"emptyDir": {"sizeLimit": desired}}, {"emptyDir": {"sizeLimit": live}}) == []

    def test_other_texts_do_not(self) -> None:
        """A label that looks like a quantity is a text."""
        assert paths({"labels": {"size": "1024Mi"}}, {"labels": {"size": "1Gi"}}) == ["labels.size"]
        assert paths({"resources": {"limits": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "2"}}})

    def test_ports_of_services_and_containers_have_their_own_identities(self) -> None:
        """A Service's port is known by its number, a container's by its own."""
        service = {"ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]}
        assert (
            paths(service, {"ports": [{"port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 31000}]}) == []
        )
        assert paths(service, {"ports": [{"port": 81, "protocol": "TCP", "targetPort": "http"}]}) == ["ports[80,TCP]"]
        pod = {"ports": [{"containerPort": 8080, "protocol": "TCP", "name": "http"}]}
        assert paths(pod, {"ports": [{"containerPort": 8080, "protocol": "TCP", "name": "web"}]}) == [
            "ports[8080,TCP].name"
        ]

    def test_empty_values_the_server_drops_are_none(self) -> None:
        """An empty list, map or text that is not stored is no difference."""
        assert paths({"a": [], "b": {}, "c": "", "d": None}, {}) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abcd"), below, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4))
def test_an_object_never_differs_from_itself(manifest: dict[str, Any]) -> None:
    """What was applied and stored as such needs no write, and comparing changes nothing."""
    before = copy.deepcopy(manifest)
    assert differences(manifest, copy.deepcopy(manifest)) == []
    assert manifest == before


@given(st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4), json_values)
def test_additions_never_differ(manifest: dict[str, Any], addition: Any) -> None:
    """A field that the manifest does not have is never a difference."""
    assert differences(manifest, {**manifest, "added": addition}) == []


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(-5, 5) | st.text("ab", min_size=1), min_size=1))
def test_every_change_is_found(manifest: dict[str, Any]) -> None:
    """Each field that holds something else is reported, and no other."""
    for key in manifest:
        assert [one.path for one in differences(manifest, {**manifest, key: ["other"]})] == [key]


class TestChildren:
    """What the builders render, as the fake world stores it."""

    def test_rendered_children_do_not_differ_from_themselves(self, world: Any) -> None:
        """Applied children need no write."""
        one = world.with_model(
            database={"secretRef": {"name": "db"}}, autoscaling={"minReplicas": 2, "maxReplicas": 4}
        ).applied()
        for ref, manifest in one.rendered.manifests.items():
            assert differences(manifest, one.objects[ref]) == []
