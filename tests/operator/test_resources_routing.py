"""Routes as Istio and as the Gateway API have them: requests that are chosen, kept, copied, and split by weight."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_operator.api import SupportAgent, parse
from supportfleet_operator.resources import Routing, revision_children, shared_children

REVISIONS: Final = ("rnew", "rold", "rout")
COOKIE: Final[dict[str, Any]] = {"cookie": {}, "ttlSeconds": 60}
HEADER: Final[dict[str, Any]] = {"header": {}, "ttlSeconds": 60}
MATCH: Final = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}, {"headers": {"x-tier": {"prefix": "gold."}}}]
HALF_WAY: Final = Routing({"rnew": 30, "rold": 70}, matched="rnew", service="rold", sticky=("rnew", "rold", "rout"))
TELLING: Final = "supportfleet-revision=%s; Max-Age=60; Path=/; HttpOnly; SameSite=Lax"

Request = Mapping[str, str]
"""The headers of a request."""


def agent(provider: str, stickiness: Any = None, match: Any = None, **traffic: Any) -> SupportAgent:
    spec: dict[str, Any] = {"template": {"image": "agent:1"}, "traffic": {"provider": provider, **traffic}}
    if stickiness:
        spec["traffic"]["stickiness"] = stickiness
    if match:
        spec["rollout"] = {"strategy": "BlueGreen", "match": match}
    metadata = {"name": "helper", "namespace": "shop", "uid": "u-1"}
    head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
    return parse({**head, "metadata": metadata, "spec": spec})


class Istio:
    """What a request meets, as Istio's documentation says: the first route that fits."""

    def __init__(self, routing: Routing, **spec: Any) -> None:
        rendered = shared_children(agent("Istio", **spec), routing).virtual_service
        assert rendered is not None
        self.http: list[dict[str, Any]] = rendered["spec"]["http"]

    def route(self, request: Request) -> dict[str, Any]:
        return next(one for one in self.http if self._fits(one, request))

    def _fits(self, route: dict[str, Any], request: Request) -> bool:
        wanted = [match["headers"] for match in route.get("match", [])]
        return not wanted or any(all(_holds(value, request.get(name)) for name, value in one.items()) for one in wanted)

    def shares(self, request: Request) -> dict[str, int]:
        return {one["destination"]["host"]: one["weight"] for one in self.route(request)["route"]}

    def told(self, request: Request) -> dict[str, dict[str, dict[str, str]]]:
        return {
            one["destination"]["host"]: one.get("headers", {}).get("response", {})
            for one in self.route(request)["route"]
        }

    def copies(self, request: Request) -> tuple[str, int] | None:
        route = self.route(request)
        return (route["mirror"]["host"], route["mirrorPercentage"]["value"]) if "mirror" in route else None


class GatewayApi:
    """What a request meets, as the Gateway API says: the match with most headers, and of those the first."""

    def __init__(self, routing: Routing, **spec: Any) -> None:
        rendered = shared_children(agent("GatewayAPI", **spec), routing).http_route
        assert rendered is not None
        self.rules: list[dict[str, Any]] = rendered["spec"]["rules"]

    def rule(self, request: Request) -> dict[str, Any]:
        found = [
            (len(match["headers"]), rule)
            for rule in self.rules
            for match in rule.get("matches", [{"headers": []}])
            if all(self._holds(one, request.get(one["name"])) for one in match["headers"])
        ]
        most = max(count for count, _ in found)
        return next(rule for count, rule in found if count == most)

    def _holds(self, wanted: dict[str, str], value: str | None) -> bool:
        if value is None or wanted["type"] == "Exact":
            return value == wanted["value"]
        return re.search(wanted["value"], value) is not None

    def shares(self, request: Request) -> dict[str, int]:
        return {one["name"]: one["weight"] for one in self.rule(request)["backendRefs"]}

    def told(self, request: Request) -> dict[str, dict[str, dict[str, str]]]:
        told = {}
        for one in self.rule(request)["backendRefs"]:
            (modifier,) = [each["responseHeaderModifier"] for each in one.get("filters", [])] or [{}]
            told[one["name"]] = {
                how: {each["name"]: each["value"] for each in headers} for how, headers in modifier.items()
            }
        return told

    def copies(self, request: Request) -> tuple[str, int] | None:
        mirrors = [one["requestMirror"] for one in self.rule(request).get("filters", [])]
        return next(((one["backendRef"]["name"], one["percent"]) for one in mirrors), None)


def _holds(wanted: Mapping[str, str], value: str | None) -> bool:
    if value is None:
        return False
    if "exact" in wanted:
        return value == wanted["exact"]
    if "prefix" in wanted:
        return value.startswith(wanted["prefix"])
    return re.fullmatch(wanted["regex"], value) is not None


BOTH = pytest.mark.parametrize("mesh", [Istio, GatewayApi])
Mesh = type[Istio | GatewayApi]


@BOTH
def test_weights_are_exact(mesh: Mesh) -> None:
    """Each revision's Service gets its percent of requests that nothing else decides; weight 0 is no destination."""
    assert mesh(HALF_WAY).shares({}) == {"helper-rnew": 30, "helper-rold": 70}
    assert mesh(Routing({"rnew": 0, "rold": 100})).shares({}) == {"helper-rold": 100}


@BOTH
@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        ({"user-agent": "Mozilla beta-tester/1"}, True),
        ({"x-tier": "gold.1"}, True),
        ({"x-tier": "goldx1"}, False),
        ({"x-tier": "no gold."}, False),
        ({"user-agent": "Mozilla"}, False),
    ],
)
def test_a_match_is_for_the_whole_value_and_a_beginning_is_literal(mesh: Mesh, request_: Request, chosen: bool) -> None:  # noqa: FBT001 - a case
    """Requests that any of the matches chooses go to the matched revision alone; a dot in a beginning is a dot."""
    assert (mesh(HALF_WAY, match=MATCH).shares(request_) == {"helper-rnew": 100}) == chosen


@BOTH
@pytest.mark.parametrize(
    ("cookie", "goes_to"),
    [
        ("supportfleet-revision=rout", {"helper-rout": 100}),
        ("a=b; supportfleet-revision=rold; c=d", {"helper-rold": 100}),
        ("a=b;supportfleet-revision=rold", {"helper-rold": 100}),
        ("supportfleet-revision=rolder", {"helper-rnew": 30, "helper-rold": 70}),
        ("not-supportfleet-revision=rold", {"helper-rnew": 30, "helper-rold": 70}),
        ("supportfleet-revision=rgone", {"helper-rnew": 30, "helper-rold": 70}),
        ("", {"helper-rnew": 30, "helper-rold": 70}),
    ],
)
def test_a_cookie_keeps_a_customer_on_the_revision(mesh: Mesh, cookie: str, goes_to: dict[str, int]) -> None:
    """A request with the cookie of a revision that is kept goes there; with any other cookie it goes by weight."""
    assert mesh(HALF_WAY, stickiness=COOKIE).shares({"cookie": cookie}) == goes_to


@BOTH
def test_a_header_keeps_a_program_on_the_revision(mesh: Mesh) -> None:
    """A request with the header's exact value goes to that revision, on its way out or not."""
    routes = mesh(HALF_WAY, stickiness=HEADER)
    assert routes.shares({"x-supportfleet-revision": "rout"}) == {"helper-rout": 100}
    assert len(routes.shares({"x-supportfleet-revision": "r"})) == 2
    assert routes.told({"x-supportfleet-revision": "rout"}) == {
        "helper-rout": {"set": {"x-supportfleet-revision": "rout"}}
    }


@BOTH
def test_every_answer_names_its_revision(mesh: Mesh) -> None:
    """Answers by weight, by match and to customers who stay set the cookie of the revision that gave them."""
    routes = mesh(HALF_WAY, stickiness=COOKIE, match=MATCH)
    new, old = ({"add": {"set-cookie": TELLING % revision}} for revision in ("rnew", "rold"))
    assert routes.told({}) == {"helper-rnew": new, "helper-rold": old}
    assert routes.told({"cookie": "supportfleet-revision=rold"}) == {"helper-rold": old}
    assert routes.told({"user-agent": "beta-tester"}) == {"helper-rnew": new}
    assert mesh(HALF_WAY, match=MATCH).told({}) == {"helper-rnew": {}, "helper-rold": {}}


@BOTH
def test_a_revision_on_its_way_out_lets_its_cookies_run_out(mesh: Mesh) -> None:
    """A revision without traffic of its own still answers its customers, but no answer makes them stay longer."""
    cookie = {"cookie": "supportfleet-revision=rout"}
    assert mesh(HALF_WAY, stickiness=COOKIE).told(cookie) == {"helper-rout": {}}


@BOTH
def test_the_matched_revision_of_a_test_names_itself_without_a_weight(mesh: Mesh) -> None:
    """In an A/B test the new revision has no weight, and its customers stay with it all the same."""
    routes = mesh(Routing({"rold": 100}, matched="rnew", sticky=("rnew",)), stickiness=COOKIE, match=MATCH)
    new = {"helper-rnew": {"add": {"set-cookie": TELLING % "rnew"}}}
    assert routes.told({"user-agent": "beta-tester"}) == new
    assert routes.told({"cookie": "supportfleet-revision=rnew"}) == new
    assert list(routes.told({})) == ["helper-rold"]


@BOTH
def test_a_match_comes_before_a_cookie(mesh: Mesh) -> None:
    """A beta tester who was on the old revision gets the new one."""
    request = {"user-agent": "beta-tester", "cookie": "supportfleet-revision=rold"}
    assert mesh(HALF_WAY, stickiness=COOKIE, match=MATCH).shares(request) == {"helper-rnew": 100}


@BOTH
def test_a_revision_that_failed_loses_its_customers_with_its_route(mesh: Mesh) -> None:
    """The cookie of a revision that isn't kept decides nothing."""
    rolled_back = Routing({"rold": 100}, sticky=("rold",))
    assert mesh(rolled_back, stickiness=COOKIE).shares({"cookie": "supportfleet-revision=rnew"}) == {"helper-rold": 100}


@BOTH
def test_requests_are_copied_to_the_revision_that_does_not_answer_them(mesh: Mesh) -> None:
    """Requests that go by weight, and those of customers who stay elsewhere, are copied; the canary's own are not."""
    mirroring = Routing({"rold": 100}, matched="rnew", sticky=("rnew", "rout"), mirror=("rnew", 25))
    routes = mesh(mirroring, stickiness=COOKIE, match=MATCH)
    assert routes.copies({}) == ("helper-rnew", 25)
    assert routes.copies({"cookie": "supportfleet-revision=rout"}) == ("helper-rnew", 25)
    assert routes.copies({"cookie": "supportfleet-revision=rnew"}) is None
    assert routes.copies({"user-agent": "beta-tester"}) is None
    assert mesh(Routing({"rold": 100}, mirror=("rnew", 0))).copies({}) is None
    assert mesh(HALF_WAY).copies({}) is None


WEIGHTS = st.integers(0, 100).flatmap(
    lambda new: st.sampled_from([{"rnew": new, "rold": 100 - new}, {"rold": 100}, {"rnew": 100}])
)
ROUTINGS = st.builds(
    Routing,
    WEIGHTS,
    matched=st.sampled_from([None, "rnew"]),
    mirror=st.sampled_from([None, ("rnew", 10), ("rnew", 0)]),
    sticky=st.lists(st.sampled_from(REVISIONS), max_size=4).map(tuple),
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "user-agent": st.sampled_from(["beta-tester", "curl"]),
        "x-tier": st.sampled_from(["gold.x", "tin"]),
        "cookie": st.sampled_from([f"a=b; supportfleet-revision={name}" for name in REVISIONS]),
        "x-supportfleet-revision": st.sampled_from(REVISIONS),
    },
)


@settings(max_examples=300, deadline=None)
@given(ROUTINGS, REQUESTS, st.sampled_from([None, COOKIE, HEADER]), st.sampled_from([None, MATCH]))
def test_istio_and_the_gateway_api_are_told_the_same(
    routing: Routing, request: Request, stickiness: Any, match: Any
) -> None:
    """Any request goes to the same revisions, in the same shares, with the same copies and headers, under both."""
    one = Istio(routing, stickiness=stickiness, match=match)
    other = GatewayApi(routing, stickiness=stickiness, match=match)
    assert one.shares(request) == other.shares(request)
    assert one.told(request) == other.told(request)
    assert one.copies(request) == other.copies(request)
    assert sum(one.shares(request).values()) == 100
    reachable = {*routing.weights, *routing.sticky, routing.matched}
    assert {host.removeprefix("helper-") for host in one.shares(request)} <= reachable


def test_there_are_no_more_rules_than_an_httproute_has_room_for() -> None:
    """However many revisions customers stay with, the most important ones have a rule, and all others go by weight."""
    many = tuple(f"r{number:07}" for number in range(40))
    routes = GatewayApi(Routing({"rnew": 1, "rold": 99}, matched="rnew", sticky=many), stickiness=HEADER, match=MATCH)
    assert len(routes.rules) <= 16
    assert routes.shares({"x-supportfleet-revision": many[0]}) == {f"helper-{many[0]}": 100}
    assert len(routes.shares({"x-supportfleet-revision": many[-1]})) == 2


def test_an_httproute_has_the_hosts_and_gateways_given_and_the_mesh() -> None:
    """Gateways are parents by name and namespace; the agent's Service is one too, for implementations with a mesh."""
    given = agent("GatewayAPI", hosts=["a.example.com"], gateways=["public", "infra/outer"])
    rendered = shared_children(given, HALF_WAY).http_route
    assert rendered is not None
    assert rendered["spec"]["hostnames"] == ["a.example.com"]
    service = {"group": "", "kind": "Service", "name": "helper", "port": 80}
    gateways = [{"name": "public"}, {"name": "outer", "namespace": "infra"}]
    assert rendered["spec"]["parentRefs"] == [*gateways, service]
    alone = shared_children(agent("GatewayAPI"), HALF_WAY).http_route
    assert alone is not None
    assert alone["spec"]["parentRefs"] == [service]
    assert "hostnames" not in alone["spec"]


@pytest.mark.parametrize(
    ("provider", "kinds"), [("None", set()), ("Istio", {"VirtualService"}), ("GatewayAPI", {"HTTPRoute"})]
)
def test_a_provider_has_its_own_routes_and_no_others(provider: str, kinds: set[str]) -> None:
    """Each provider has one kind of route, and none while nothing serves."""
    routes = {"VirtualService", "HTTPRoute"}
    assert {one["kind"] for one in shared_children(agent(provider), HALF_WAY)} & routes == kinds
    assert {one["kind"] for one in shared_children(agent(provider), Routing())} & routes == set()


class TestDestinationRule:
    def rule(self, provider: str, pods: int) -> dict[str, Any] | None:
        return revision_children(agent(provider), "rnew", replicas=pods, autoscaled=False).destination_rule

    def test_it_is_for_the_revisions_own_service(self) -> None:
        """With Istio each revision that has pods has a rule for the host that its routes name."""
        rule = self.rule("Istio", 1)
        assert rule is not None
        assert rule["metadata"]["name"] == rule["spec"]["host"] == "helper-rnew"
        assert self.rule("Istio", 0) is None
        assert self.rule("GatewayAPI", 1) is None
        assert self.rule("None", 1) is None

    def test_pods_that_answer_are_never_taken_out(self) -> None:
        """Only pods that can't be reached are; errors that are answered stay for the analysis to see."""
        rule = self.rule("Istio", 1)
        assert rule is not None
        detection = rule["spec"]["trafficPolicy"]["outlierDetection"]
        assert detection["consecutive5xxErrors"] == 0
        assert "consecutiveGatewayErrors" not in detection
        assert detection["splitExternalLocalOriginErrors"] is True
        assert detection["consecutiveLocalOriginFailures"] > 0

    def test_a_revision_is_never_left_without_pods(self) -> None:
        """With most of its pods out of reach, all are tried: a single pod never answers for nobody."""
        rule = self.rule("Istio", 1)
        assert rule is not None
        detection = rule["spec"]["trafficPolicy"]["outlierDetection"]
        assert detection["minHealthPercent"] >= 100 - detection["maxEjectionPercent"] > 0

    def test_pods_get_even_shares_in_every_zone(self) -> None:
        """Detecting outliers doesn't have Istio keep requests within a zone."""
        rule = self.rule("Istio", 1)
        assert rule is not None
        assert rule["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"]["enabled"] is False

    def test_the_meshs_own_encryption_holds(self) -> None:
        """No TLS setting of ours overrides those of the mesh."""
        rule = self.rule("Istio", 1)
        assert rule is not None
        assert "tls" not in rule["spec"]["trafficPolicy"]
