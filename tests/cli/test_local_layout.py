from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet.errors import AddressClashError, ClusterError
from supportfleet.local.embedded.layout import INDICES, MAX_NODES, Addresses, Layout, checked_name
from supportfleet.local.embedded.namespaces import clashes, free_addresses, require_free

names = st.from_regex(r"[a-z]([-a-z0-9]{0,28}[a-z0-9])?", fullmatch=True)
networks = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(int(IPv4Address("10.80.0.0")), int(IPv4Address("10.130.0.0"))),
    st.integers(8, 32),
)


def layout(name: str) -> Layout:
    return Layout(name, Path("/state") / name)


def test_no_two_indices_share_an_address() -> None:
    """Clusters of different indices can run side by side: none of their ranges overlap."""
    for one, other in combinations(INDICES, 2):
        for a in Addresses(one).ranges:
            assert not any(a.overlaps(b) for b in Addresses(other).ranges)


def test_everything_of_a_cluster_has_an_address_of_its_own() -> None:
    """Control plane, host and every node differ, and every node's pods are in a range that no other node has."""
    addresses = Addresses(3)
    single = [addresses.control, addresses.host, *(addresses.node(n) for n in range(1, MAX_NODES + 1))]
    assert len(set(single)) == len(single)
    assert all(address in addresses.nodes for address in single)
    pods = [addresses.pod_range(n) for n in range(1, MAX_NODES + 1)]
    assert len(set(pods)) == len(pods)
    assert all(pod.subnet_of(addresses.pods) for pod in pods)


@settings(deadline=None)
@given(names, names)
def test_a_cluster_owns_its_namespaces_and_no_other_clusters(one: str, other: str) -> None:
    """`down` finds namespaces by name, and a name that begins like another's does not make them its own."""
    mine, theirs = layout(one), layout(other)
    for namespace in (theirs.control_namespace, theirs.node_namespace(1), theirs.node_namespace(12)):
        assert mine.owns_namespace(namespace) == (one == other)


@settings(deadline=None)
@given(names)
def test_names_fit_where_the_kernel_and_kubernetes_put_them(name: str) -> None:
    """The longest cluster name still gives a link of 15 characters and a node of 63."""
    assert checked_name(name) == name
    assert len(layout(name).host_link) <= 15
    assert len(layout(name).node(MAX_NODES).name) <= 63


@pytest.mark.parametrize("name", ["", "A", "1a", "a_b", "a/b", "../a", "a b", "a-", "-a", "a" * 31, "ä"])
def test_other_names_are_refused_with_what_is_allowed(name: str) -> None:
    """A name that could not be part of a path, a link or a label is refused before anything is made."""
    with pytest.raises(ClusterError, match=r"lower-case letters, digits and hyphens"):
        checked_name(name)


@settings(deadline=None)
@given(st.lists(networks, max_size=20), st.sets(st.sampled_from(list(INDICES)), max_size=14))
def test_chosen_addresses_are_free(taken: list[IPv4Network], reserved: set[int]) -> None:
    """The addresses of a new cluster overlap nothing in use and are no other cluster's; else it says so."""
    free = [index for index in INDICES if index not in reserved and not clashes(Addresses(index), taken)]
    if free:
        chosen = free_addresses(taken, reserved)
        assert chosen.index not in reserved
        assert not any(own.overlaps(other) for own in chosen.ranges for other in taken)
    else:
        with pytest.raises(AddressClashError, match="ip route"):
            free_addresses(taken, reserved)


def test_a_route_that_came_later_is_named() -> None:
    """A cluster whose addresses something else has taken since is not started: the error names both ranges."""
    taken = [IPv4Network("10.90.4.0/24")]
    with pytest.raises(AddressClashError, match=r"10\.90\.0\.0/16.*10\.90\.4\.0/24") as caught:
        require_free(layout("demo"), Addresses(0), taken)
    assert "local down --name demo" in caught.value.remedy
    require_free(layout("demo"), Addresses(1), taken)
