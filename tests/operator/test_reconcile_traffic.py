"""Routes of either provider as the reconciler keeps them: weights, copies, customers who stay, and what is absent."""

from __future__ import annotations

from typing import Any

import pytest

from supportfleet_operator.cluster.resources import ObjectRef
from supportfleet_operator.reconcile.policies import traffic

ROUTE = {"Istio": "VirtualService", "GatewayAPI": "HTTPRoute"}
SERVED = {"Istio": frozenset({"VirtualService", "DestinationRule"}), "GatewayAPI": frozenset({"HTTPRoute"})}
ABSENT = {"Istio": "IstioNotInstalled", "GatewayAPI": "GatewayAPINotInstalled"}
STEPS = [{"setMirror": 30}, {"pause": {}}, {"setMirror": 0}, {"setWeight": 25}, {"pause": {}}]
STICKY = {"cookie": {"name": "agent-revision"}, "ttlSeconds": 600}


@pytest.fixture(params=["Istio", "GatewayAPI"])
def desk(world: Any, request: pytest.FixtureRequest) -> Any:
    """An agent on its first image, by each of the providers."""
    one = world(
        replicas=4,
        database={"secretRef": {"name": "db"}},
        traffic={
            "provider": request.param,
            "hosts": ["desk.example.com"],
            "gateways": ["infra/web"],
            "stickiness": STICKY,
        },
        rollout={"strategy": "Canary", "steps": STEPS, "scaleDownDelaySeconds": 30},
    )
    one.served = SERVED[request.param]
    one.provider = request.param
    one.agent["metadata"]["name"] = "desk"
    return one.applied()


def rules(one: Any) -> list[dict[str, Any]]:
    """Routes by name, each with its shares and copies, whatever the provider calls them."""
    spec = one.child(ROUTE[one.provider])["spec"]
    found = []
    for rule in spec.get("http") or spec.get("rules"):
        if one.provider == "Istio":
            shares = {entry["destination"]["host"]: entry["weight"] for entry in rule["route"]}
            mirror = rule.get("mirror") and (rule["mirror"]["host"], rule["mirrorPercentage"]["value"])
        else:
            shares = {entry["name"]: entry["weight"] for entry in rule["backendRefs"]}
            copies = [entry["requestMirror"] for entry in rule.get("filters", ()) if "requestMirror" in entry]
            mirror = copies and (copies[0]["backendRef"]["name"], copies[0]["percent"])
        found.append({"name": rule["name"], "shares": shares, "mirror": mirror or None})
    return found


def weighted(one: Any) -> dict[str, int]:
    shares: dict[str, int] = rules(one)[-1]["shares"]
    return {name.removeprefix("desk-"): weight for name, weight in shares.items()}


def condition(one: Any, kind: str = "TrafficRouted") -> tuple[str, str, str]:
    listed = one.status()["conditions"]
    return next((told["status"], told["reason"], told["message"]) for told in listed if told["type"] == kind)


def test_a_rollout_by_routes(desk: Any) -> None:
    """Copies first, then a share; after the promotion customers of the old revision stay with it for their time."""
    first = desk.revision
    assert weighted(desk) == {first: 100}
    desk.edit(template={"image": "agent:2"}).settle()
    second = desk.revision
    assert weighted(desk) == {first: 100}
    assert rules(desk)[-1]["mirror"] == (f"desk-{second}", 30)
    desk.ask("resume", second, "1").settle()
    assert weighted(desk) == {first: 75, second: 25}
    assert rules(desk)[-1]["mirror"] is None
    assert {rule["name"] for rule in rules(desk)} == {"weighted", f"sticky-{first}", f"sticky-{second}"}
    desk.ask("promote", second, "2").settle()
    assert weighted(desk) == {second: 100}
    assert f"sticky-{first}" in {rule["name"] for rule in rules(desk)}
    assert desk.child("Deployment", first)["spec"]["replicas"] == 4
    desk.after(599).settle()
    assert desk.child("Deployment", first)["spec"]["replicas"] == 4
    desk.after(2).settle()
    assert [rule["name"] for rule in rules(desk)] == ["weighted"]
    assert desk.child("Deployment", first)["spec"]["replicas"] == 4
    desk.after(30).settle()
    assert desk.child("Deployment", first)["spec"]["replicas"] == 0


def test_a_rolled_back_revision_keeps_nobody(desk: Any) -> None:
    """Its customers leave it together with its weight."""
    first = desk.revision
    desk.edit(template={"image": "agent:2"}).settle()
    second = desk.revision
    desk.ask("resume", second, "1").settle()
    desk.ask("abort", second, "2").step()
    assert [rule["name"] for rule in rules(desk)] == ["weighted"]
    assert weighted(desk) == {first: 100}


@pytest.mark.parametrize("rollout", [
    {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}]},
    {"strategy": "ABTest", "steps": [{"pause": {}}], "match": [{"headers": {"x": {"exact": "1"}}}]},
])  # fmt: skip
def test_a_kind_that_is_absent(desk: Any, rollout: dict[str, Any]) -> None:
    """No route is written, a strategy that needs one waits, and the condition has the remedy; it may come later."""
    desk.served = frozenset()
    desk.objects = {ref: live for ref, live in desk.objects.items() if ref.kind not in ROUTE.values()}
    first = desk.revision
    desk.edit(rollout=rollout, template={"image": "agent:2"}).settle()
    status, reason, message = condition(desk)
    assert (status, reason) == ("False", ABSENT[desk.provider])
    assert "spec.traffic.provider" in message
    assert "install" in message
    assert desk.rollout["stableRevision"] == first
    assert desk.rollout.get("currentWeight", 0) == 0
    desk.served = SERVED[desk.provider]
    desk.settle()
    assert desk.rollout["currentStep"] >= 0
    assert desk.rollout["phase"] == "Paused"
    assert desk.rollout["reason"] == "PauseStep"


def test_other_providers_routes_go(desk: Any) -> None:
    """An agent that is moved to the other provider leaves no route of the first behind."""
    other = "GatewayAPI" if desk.provider == "Istio" else "Istio"
    desk.served = SERVED["Istio"] | SERVED["GatewayAPI"]
    desk.edit(traffic={"provider": other}).settle()
    kinds = {ref.kind for ref in desk.objects}
    assert ROUTE[desk.provider] not in kinds
    assert ROUTE[other] in kinds


class TestGateways:
    """What the controllers of Gateways say of an HTTPRoute."""

    @pytest.fixture
    def route(self, world: Any) -> Any:
        one = world(
            database={"secretRef": {"name": "db"}},
            traffic={"provider": "GatewayAPI", "hosts": ["desk.example.com"], "gateways": ["infra/web"]},
        )
        one.served, one.provider = SERVED["GatewayAPI"], "GatewayAPI"
        one.applied()
        return one

    def say(self, one: Any, **conditions: str) -> tuple[str, str, str]:
        listed = [
            {"type": kind, "status": status, "reason": f"No{kind}", "message": "said so"}
            for kind, status in conditions.items()
        ]
        ref = ObjectRef("HTTPRoute", "shop", "desk")
        one.objects[ref]["status"] = {"parents": [{"parentRef": {"name": "web"}, "conditions": listed}]}
        return condition(one)

    def test_nobody_has_looked(self, route: Any) -> None:
        """Without a controller nothing is known, and that is said with the field."""
        status, reason, message = condition(route)
        assert (status, reason) == ("Unknown", traffic.PENDING)
        assert "spec.traffic.gateways" in message

    def test_a_gateway_took_it(self, route: Any) -> None:
        """The shares are told."""
        status, reason, message = self.say(route, Accepted="True", ResolvedRefs="True")
        assert (status, reason) == ("True", traffic.ROUTED)
        assert f"100 % to {route.revision}" in message

    @pytest.mark.parametrize("kind", ["Accepted", "ResolvedRefs"])
    def test_a_gateway_refuses_it(self, route: Any, kind: str) -> None:
        """Its own words are passed on, with the Gateway's name."""
        status, reason, message = self.say(route, **{"Accepted": "True", kind: "False"})
        assert (status, reason) == ("False", traffic.NOT_ACCEPTED)
        for said in ("'web'", f"No{kind}", "said so"):
            assert said in message
