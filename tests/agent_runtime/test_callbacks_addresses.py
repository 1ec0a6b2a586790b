from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.callbacks.addresses import (
    AllowList,
    forbidden,
    is_public,
    literal_address,
    parse_allow_list,
    url_problem,
)
from supportfleet_runtime.callbacks.webhook import JudgingResolver
from supportfleet_runtime.errors import DeliveryError

NOTHING = AllowList()
CLOSED_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
]
CLOSED_V6 = ["::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "fec0::/10", "2001:db8::/32", "2001::/32"]


@st.composite
def closed_v4(draw: Any) -> IPv4Address:
    network = IPv4Network(draw(st.sampled_from(CLOSED_V4)))
    return network[draw(st.integers(0, network.num_addresses - 1))]


@st.composite
def closed_v6(draw: Any) -> IPv6Address:
    network = IPv6Network(draw(st.sampled_from(CLOSED_V6)))
    return network[draw(st.integers(0, network.num_addresses - 1))]


def spellings(address: IPv4Address) -> list[str]:
    """How else an IPv4 address may be written."""
    number = int(address)
    a, b, c, d = address.packed
    return [
        str(address),
        str(number),
        hex(number),
        oct(number).replace("0o", "0"),
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{address}.",
        f"[::ffff:{address}]",
        f"[::ffff:{a:02x}{b:02x}:{c:02x}{d:02x}]",
        f"[64:ff9b::{address}]",
        f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]",
        f"[::{address}]",
    ]


class TestAddresses:
    @given(closed_v4())
    def test_no_spelling_of_a_closed_address_gets_through(self, address: IPv4Address) -> None:
        """Private, loopback, link-local, shared and reserved addresses are refused, however they are written."""
        assert not is_public(address)
        for host in spellings(address):
            assert url_problem(f"https://{host}/hook", NOTHING), host
            assert url_problem(f"https://{host.upper()}:8443/hook", NOTHING), host

    @given(closed_v4())
    def test_what_a_resolver_makes_of_it_does_not_either(self, address: IPv4Address) -> None:
        """A spelling that the system understands as an address is judged as that address."""
        for spelling in spellings(address)[:8]:
            try:
                understood = socket.inet_aton(spelling)
            except OSError:
                continue
            assert forbidden([ip_address(understood)], NOTHING)

    @given(closed_v6())
    def test_closed_ipv6(self, address: IPv6Address) -> None:
        """The same for IPv6."""
        assert not is_public(address)
        assert url_problem(f"https://[{address}]/", NOTHING)
        assert url_problem(f"https://[{address.exploded}]/", NOTHING)

    @given(st.ip_addresses(v=4))
    def test_ipv6_spellings_are_judged_as_what_they_mean(self, address: Any) -> None:
        """A mapped or translated IPv4 address is public where that is."""
        number = int(address)
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            assert is_public(IPv6Address(int(IPv6Address(prefix)) | number)) == is_public(address)

    @given(st.ip_addresses())
    def test_public_means_global(self, address: Any) -> None:
        """Nothing is public here that the registries don't call global."""
        if is_public(address):
            assert address.is_global or (address.version == 6 and address in IPv6Network("64:ff9b::/96"))
            assert not address.is_multicast
            assert not address.is_private or address.version == 6

    @pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
    def test_the_internet_is_open(self, address: str) -> None:
        """Public addresses are."""
        assert is_public(ip_address(address))

    @given(st.lists(st.ip_addresses(), max_size=4))
    def test_one_closed_address_closes_a_name(self, addresses: list[Any]) -> None:
        """A name is refused if any of its addresses is, or if it has none."""
        assert forbidden(addresses, NOTHING) == (not addresses or not all(map(is_public, addresses)))


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://hooks.shop.example/in",
            "https://hooks.shop.example:8443/in?a=b",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
            "HTTPS://Hooks.Shop.Example/",
        ],
    )
    def test_what_can_be_called(self, url: str) -> None:
        """Public hosts by https."""
        assert url_problem(url, NOTHING) is None

    @pytest.mark.parametrize(
        "url",
        [
            "http://hooks.shop.example/",
            "ftp://hooks.shop.example/",
            "https://",
            "https:///path",
            "//hooks.shop.example/",
            "hooks.shop.example",
            "file:///etc/passwd",
            "https://user@hooks.shop.example/",
            "https://user:password@hooks.shop.example/",
            "https://hooks.shop.example/#x",
            "https://hooks.shop.example:0/",
            "https://hooks.shop.example:99999/",
            "https://hooks.shop.example/a b",
            "https://hooks.shop.example/\r\nHost: x",
            "https://hööks.example/",
            "https://[fe80::1%25eth0]/",
            "https://[::1/",
            "https://" + "a" * 3000 + ".example/",
            "",
        ],
    )
    def test_what_cannot(self, url: str) -> None:
        """Everything else is refused with a reason."""
        assert url_problem(url, NOTHING)

    @given(st.text(max_size=60))
    def test_any_text_is_judged(self, text: str) -> None:
        """No text breaks the judgement, and what passes has a host and https."""
        for url in (text, f"https://{text}"):
            if url_problem(url, NOTHING) is None:
                assert url.lower().startswith("https://")


class TestAllowList:
    def test_hosts_suffixes_and_networks(self) -> None:
        """Each kind of entry opens what it names, and plain http for it."""
        allowed = parse_allow_list("receiver, .svc.cluster.local  10.1.0.0/16,::1")
        for host in ("receiver", "Receiver.", "a.shop.svc.cluster.local", "10.1.2.3", "[::1]"):
            assert url_problem(f"http://{host}/", allowed) is None, host
        for host in ("other", "svc.cluster.local", "10.2.0.1", "receiver.evil.example", "[::2]"):
            assert url_problem(f"http://{host}/", allowed), host

    @pytest.mark.parametrize("text", ["http://host", "a b/c", "10.0.0.1/8", "*.svc", "host:80", ".."])
    def test_what_is_no_entry(self, text: str) -> None:
        """A list that can't be understood is refused as a whole, with the entry."""
        with pytest.raises(ValueError, match="is no host"):
            parse_allow_list(text)

    def test_a_name_is_not_opened_by_what_it_resolves_to(self) -> None:
        """A network on the list opens its addresses, and nothing beside them."""
        allowed = parse_allow_list("10.1.0.0/16")
        assert not forbidden([ip_address("10.1.2.3")], allowed)
        assert forbidden([ip_address("10.1.2.3"), ip_address("10.2.0.1")], allowed)


class TestResolving:
    async def test_a_name_that_turns_inwards_is_refused(self) -> None:
        """A public name that resolves to a private address, alone or among public ones, is not connected to."""
        for answers in (["127.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::ffff:10.0.0.1"], []):
            with pytest.raises(DeliveryError, match="address_not_allowed"):
                await JudgingResolver(NOTHING, resolving(answers)).resolve("rebind.example", 443)

    async def test_the_judged_addresses_are_the_ones_that_are_used(self) -> None:
        """What is connected to is the very answer that was judged, and the name is asked for once."""
        asked: list[str] = []
        resolver = JudgingResolver(NOTHING, resolving(["8.8.8.8"], asked))
        assert [one["host"] for one in await resolver.resolve("hooks.example", 443)] == ["8.8.8.8"]
        assert asked == ["hooks.example"]


def resolving(answers: list[str], asked: list[str] | None = None) -> Any:
    async def resolve(host: str, port: int, _family: socket.AddressFamily) -> list[Any]:
        if asked is not None:
            asked.append(host)
        return [{"hostname": host, "host": one, "port": port, "family": 0, "proto": 0, "flags": 0} for one in answers]

    return resolve


def test_a_literal_is_told_from_a_name() -> None:
    """An address in brackets or not is a literal; a name is none."""
    assert literal_address("10.0.0.1") == IPv4Address("10.0.0.1")
    assert literal_address("hooks.example") is None
