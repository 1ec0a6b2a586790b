"""The cache: what belongs to whom, in the newest state, and who is told."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supportfleet_operator.cluster.cache import Cache, is_owned_by, trim
from supportfleet_operator.cluster.resources import CONFIG_MAPS, AgentKey, ObjectRef, ref_of

LABEL = "supportfleet.dev/agent"
DESK = AgentKey("shop", "desk")


def child(
    name: str = "c", *, agent: str = "desk", version: int = 1, uid: str = "u1", owned: bool = True
) -> dict[str, Any]:
    owner = {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "name": agent,
        "uid": f"uid-{agent}",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {LABEL: agent},
            **({"ownerReferences": [owner]} if owned else {}),
        },
        "data": {"version": str(version)},
    }


@pytest.fixture
def cache(recorded: deque[Any]) -> Cache:
    return Cache(LABEL, recorded.append)


def test_a_child_is_found_by_its_agent_and_its_agent_is_told(cache: Cache, recorded: deque[Any]) -> None:
    """An object is indexed by its controller."""
    cache.put(child())
    assert [one["metadata"]["name"] for one in cache.of_agent(DESK)] == ["c"]
    assert list(recorded) == [DESK]


def test_an_older_state_is_ignored(cache: Cache, recorded: deque[Any]) -> None:
    """Events that come late, or twice, change nothing and wake nobody."""
    cache.put(child(version=5))
    recorded.clear()
    cache.put(child(version=4))
    cache.put(child(version=5))
    assert cache.of_agent(DESK)[0]["data"] == {"version": "5"}
    assert not recorded


def test_a_successor_of_the_same_name_is_taken(cache: Cache) -> None:
    """Another uid is another object, whatever its version."""
    cache.put(child(version=5))
    cache.put(child(version=4, uid="u2"))
    assert cache.of_agent(DESK)[0]["metadata"]["uid"] == "u2"


def test_the_deletion_of_a_predecessor_spares_the_successor(cache: Cache) -> None:
    """A late DELETED of another uid is not about this object."""
    cache.put(child(version=6, uid="u2"))
    cache.delete(child(version=5, uid="u1"))
    assert cache.of_agent(DESK)


def test_both_owners_hear_of_a_move(cache: Cache, recorded: deque[Any]) -> None:
    """Who loses a child must make another, so both are told."""
    cache.put(child(owned=False))
    recorded.clear()
    cache.put(child(agent="other", version=2, owned=False))
    assert set(recorded) == {DESK, AgentKey("shop", "other")}
    assert cache.of_agent(DESK) == []


def test_the_controller_counts_more_than_the_label(cache: Cache) -> None:
    """A label changed by hand does not move a child away from its agent."""
    tampered = child()
    tampered["metadata"]["labels"][LABEL] = "other"
    cache.put(tampered)
    assert cache.of_agent(DESK)


def test_a_list_removes_what_it_does_not_hold(cache: Cache, recorded: deque[Any]) -> None:
    """After a new list what vanished meanwhile is gone, and its agent is told."""
    cache.put(child("a", uid="a"))
    cache.put(child("b", uid="b"))
    recorded.clear()
    cache.replace(CONFIG_MAPS, None, [child("a", uid="a")])
    assert [one["metadata"]["name"] for one in cache.of_agent(DESK)] == ["a"]
    assert list(recorded) == [DESK]


def test_a_list_of_one_namespace_spares_the_others(cache: Cache) -> None:
    """An operator for two namespaces has two lists of each kind."""
    cache.put(child("a"))
    cache.replace(CONFIG_MAPS, "elsewhere", [])
    assert cache.of_agent(DESK)


def test_our_own_write_does_not_bring_back_what_the_watch_saw_go(cache: Cache) -> None:
    """An answer that arrives after the watch told of the deletion is not put into the cache."""
    cache.put(child(version=5))
    cache.delete(child(version=8))
    cache.seen(CONFIG_MAPS, "8")
    cache.put_own(child(version=7))
    assert cache.of_agent(DESK) == []
    cache.put_own(child(version=9))
    assert cache.of_agent(DESK)


def test_pods_shrink_to_their_state() -> None:
    """Of a pod only what decides is kept, and none of its environment."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "managedFields": [{"manager": "kubelet"}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "agent", "env": [{"name": "X", "value": "secret"}]}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "agent", "ready": True, "imageID": "sha256:…"}]},
    }
    before = copy.deepcopy(pod)
    small = trim(pod)
    assert pod == before
    assert small["spec"] == {"nodeName": "n1"}
    assert small["status"]["containerStatuses"] == [{"name": "agent", "ready": True}]
    assert "secret" not in str(small)
    assert "managedFields" not in small["metadata"]


def test_the_controller_is_who_owns() -> None:
    """Other owner references don't make an object ours."""
    assert is_owned_by(child(), "uid-desk")
    assert not is_owned_by(child(), "uid-other")
    assert not is_owned_by(child(owned=False), "uid-desk")


class CacheMachine(RuleBasedStateMachine):
    """Any order of events, lists and own writes, against a plain model of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[AgentKey] = set()
        self.cache = Cache(LABEL, self.told.add)
        self.truth: dict[ObjectRef, dict[str, Any]] = {}
        self.version = 0

    @rule(name=st.sampled_from("abc"), agent=st.sampled_from(["desk", "other"]))
    def put(self, name: str, agent: str) -> None:
        self.version += 1
        one = child(name, agent=agent, version=self.version, uid=f"{name}-{agent}", owned=False)
        self.truth[ref_of(one)] = one
        self.cache.put(one)

    @rule(name=st.sampled_from("abc"))
    def delete(self, name: str) -> None:
        gone = self.truth.pop(ObjectRef("ConfigMap", "shop", name), None)
        if gone:
            self.version += 1
            self.cache.delete(gone)

    @rule(name=st.sampled_from("abc"))
    def repeat_an_old_event(self, name: str) -> None:
        known = self.truth.get(ObjectRef("ConfigMap", "shop", name))
        if known:
            self.cache.put(copy.deepcopy(known))

    @rule()
    def relist(self) -> None:
        self.cache.replace(CONFIG_MAPS, None, [copy.deepcopy(one) for one in self.truth.values()])

    @invariant()
    def cache_is_the_truth(self) -> None:
        for key in (DESK, AgentKey("shop", "other")):
            expected = sorted(
                one["metadata"]["name"] for one in self.truth.values() if one["metadata"]["labels"][LABEL] == key.name
            )
            assert [one["metadata"]["name"] for one in self.cache.of_agent(key)] == expected
        assert len(self.cache) == len(self.truth)


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCacheMachine = CacheMachine.TestCase
