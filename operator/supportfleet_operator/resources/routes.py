"""The routes of an agent, in the order in which they are tried, before Istio or the Gateway API spells them.

First go requests that ``spec.rollout.match`` chooses, then those of customers who stay with a revision, then all others
by weight.

Stickiness needs no state: each response names its revision, in a cookie or a header, and a request that brings the
name back goes there as long as there is a route for it. A revision that is on its way out doesn't renew the cookie, so
its last customer is gone ``ttlSeconds`` after it lost its traffic; one that was rolled back has no route from that
moment on, and its customers go by weight.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from supportfleet_operator.api import HeaderMatch, Stickiness, StringMatch, SupportAgent
from supportfleet_operator.resources.routing import Routing

MOST_STICKY: Final = 8
"""Revisions that customers can stay with at once: an HTTPRoute has room for 16 rules."""
ALL: Final = 100


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """A header that responses get."""

    how: Literal["add", "set"]
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A revision, and its share of a route's requests."""

    revision: str
    weight: int
    tells: ResponseHeader | None = None
    """What its responses say."""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of one sort, and where they go."""

    name: str
    destinations: tuple[Destination, ...]
    matches: tuple[HeaderMatch, ...] = ()
    """Any of these; none for all requests."""
    mirror: tuple[str, int] | None = None


def routes(agent: SupportAgent, routing: Routing) -> list[Route]:
    """All routes; the last one takes every request."""
    found = [*_matched(agent, routing), *_sticky(agent, routing)]
    weights = [(revision, weight) for revision, weight in sorted(routing.weights.items()) if weight > 0]
    return [*found, _route(agent, routing, "weighted", weights)]


def _matched(agent: SupportAgent, routing: Routing) -> Iterator[Route]:
    if routing.matched is not None and agent.spec.rollout.match:
        yield _route(agent, routing, "matched", [(routing.matched, ALL)], agent.spec.rollout.match)


def _sticky(agent: SupportAgent, routing: Routing) -> Iterator[Route]:
    """A route for each revision that customers stay with, but for one that they would come to anyway."""
    stickiness = agent.spec.traffic.stickiness
    if stickiness is None:
        return
    chosen = [name for name in dict.fromkeys(routing.sticky) if routing.weights.get(name) != ALL]
    for revision in chosen[:MOST_STICKY]:
        yield _route(agent, routing, f"sticky-{revision}", [(revision, ALL)], (_brings(stickiness, revision),))


def _route(
    agent: SupportAgent,
    routing: Routing,
    name: str,
    weights: list[tuple[str, int]],
    matches: tuple[HeaderMatch, ...] = (),
) -> Route:
    """A revision isn't sent copies of what it answers itself, where that can be told."""
    mirror = routing.mirror
    own = mirror is not None and [mirror[0]] == [revision for revision, _ in weights]
    return Route(
        name=name,
        destinations=tuple(
            Destination(revision, weight, _tells(agent.spec.traffic.stickiness, routing, revision))
            for revision, weight in weights
        ),
        matches=matches,
        mirror=None if mirror is None or own or mirror[1] == 0 else mirror,
    )


def _brings(stickiness: Stickiness, revision: str) -> HeaderMatch:
    """Requests that bring the revision's name back."""
    if stickiness.header is not None:
        return HeaderMatch(headers={stickiness.header.name: StringMatch(exact=revision)})
    among = rf"(.*;\s*)?{_cookie(stickiness)}={revision}(;.*)?"
    return HeaderMatch(headers={"cookie": StringMatch(regex=among)})


def _tells(stickiness: Stickiness | None, routing: Routing, revision: str) -> ResponseHeader | None:
    """The header that names the revision. A cookie lasts by itself: a revision on its way out lets it run out."""
    if stickiness is None:
        return None
    if stickiness.header is not None:
        return ResponseHeader("set", stickiness.header.name, revision)
    if not routing.weights.get(revision) and revision != routing.matched:
        return None
    attributes = f"Max-Age={stickiness.ttl_seconds}; Path=/; HttpOnly; SameSite=Lax"
    return ResponseHeader("add", "set-cookie", f"{_cookie(stickiness)}={revision}; {attributes}")


def _cookie(stickiness: Stickiness) -> str:
    if stickiness.cookie is None:
        raise ValueError("this stickiness has no cookie")
    return stickiness.cookie.name


def response_headers(destination: Destination) -> Mapping[str, Mapping[str, str]]:
    """What a destination's responses say, by how it is said."""
    told = destination.tells
    return {} if told is None else {told.how: {told.name: told.value}}
