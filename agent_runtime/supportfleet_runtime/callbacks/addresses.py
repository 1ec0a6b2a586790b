"""Which addresses a webhook may reach: those of the public internet, and what an operator allows beside them. Pure.

A URL comes from outside, and the process stands inside a cluster: a webhook to a pod, to the node or to the cloud's
metadata service would make it the caller's arm. A name is worth nothing here, since its owner decides what it resolves
to, and when; so every address that it resolves to is judged, and the connection is made to one of those, not to the
name (see ``webhook``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from yarl import URL

MAX_URL: Final = 2000
_PLAIN: Final = re.compile(r"[!-~]{1,2000}")
"""ASCII without white space and controls, up to ``MAX_URL`` characters."""
_NUMBER_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Beyond what ``is_global`` knows, or knows only in some versions of Python.
_CLOSED_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT: pods of some clusters, and a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host, behind a public address
        "169.254.0.0/16",  # link-local: metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_OPEN_V6: Final = IPv6Network("2000::/3")
"""Global unicast; nothing outside it is the public internet."""
_CLOSED_V6: Final = tuple(IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Inside it: protocols' own addresses, examples, and tunnels that lead to any IPv4 address."""
_TRANSLATED: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv6 spellings of IPv4 addresses: mapped, and translated by a NAT64."""


@dataclass(frozen=True)
class AllowList:
    """What may be called though it is not public: hosts, the hosts below a suffix (``.svc``), networks."""

    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def has_host(self, host: str) -> bool:
        """Whether a host is on the list, by its name or as an address."""
        name = host.lower().rstrip(".")
        if name in self.hosts or name.endswith(self.suffixes):
            return True
        literal = literal_address(host)
        return literal is not None and self.has_address(literal)

    def has_address(self, address: Address) -> bool:
        """Whether an address is within a network of the list."""
        return any(address.version == network.version and address in network for network in self.networks)


def parse_allow_list(text: str) -> AllowList:
    """The list that ``text`` (separated by commas or white space) spells; ``ValueError`` names what is wrong."""
    hosts: set[str] = set()
    suffixes: list[str] = []
    networks: list[Network] = []
    for entry in text.replace(",", " ").split():
        network = _network(entry)
        if network is not None:
            networks.append(network)
        elif _NAME.fullmatch(entry.removeprefix(".")):
            (suffixes.append if entry.startswith(".") else hosts.add)(entry.lower())
        else:
            raise ValueError(f"{entry[:80]!r} is no host, no suffix such as .svc, and no network")
    return AllowList(frozenset(hosts), tuple(suffixes), tuple(networks))


def url_problem(url: str, allowed: AllowList) -> str | None:
    """Why this URL can't be called, as far as it says itself; ``None`` where its addresses decide."""
    if not _PLAIN.fullmatch(url):
        return f"a URL has up to {MAX_URL} characters of ASCII, without white space"
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        return "it is no URL"
    if parsed.scheme not in {"http", "https"} or not host or not port:
        return "a webhook's URL begins with https:// and a host"
    if parsed.user is not None or parsed.password is not None or parsed.fragment:
        return "a webhook's URL has no user, password or fragment"
    if parsed.scheme == "http" and not allowed.has_host(host):
        return "a webhook's URL begins with https://"
    return _host_problem(host, allowed)


def forbidden(addresses: Collection[Address], allowed: AllowList) -> bool:
    """Whether any of the addresses that a name resolves to may not be reached; none at all is as bad."""
    return not addresses or not all(allowed.has_address(one) or is_public(one) for one in addresses)


def is_public(address: Address) -> bool:
    """Whether an address is the public internet's, whatever spelling it comes in."""
    if isinstance(address, IPv4Address):
        return address.is_global and not _within(address, _CLOSED_V4)
    if _within(address, _TRANSLATED):
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address.scope_id is None and address in _OPEN_V6 and address.is_global and not _within(address, _CLOSED_V6)


def literal_address(host: str) -> Address | None:
    """The address that a host is, where it is no name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host_problem(host: str, allowed: AllowList) -> str | None:
    literal = literal_address(host)
    if literal is not None:
        return None if allowed.has_address(literal) or is_public(literal) else "this address may not be called"
    if _NUMBER_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return "an address is written with four decimal numbers"  # the system's resolver would take 127.1 or 0x7f.1
    return None


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None
