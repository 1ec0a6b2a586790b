"""The order of writes on a fake API server: the state before its effects, routes before pods, and nothing on doubt."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from supportfleet_operator.cluster import watch as watch_module
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.limiter import Limiter
from supportfleet_operator.cluster.prometheus import Reply, Server
from supportfleet_operator.cluster.resources import (
    DEPLOYMENTS,
    PODS,
    SERVICES,
    SUPPORT_AGENTS,
    VIRTUAL_SERVICES,
    AgentKey,
)
from supportfleet_operator.cluster.scraper import Target
from supportfleet_operator.cluster.watch import LOOK_AGAIN
from supportfleet_operator.errors import ClusterError
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.reconcile.apply import Applier
from supportfleet_operator.reconcile.engine import Engine

DESK = AgentKey("shop", "desk")
CANARY = {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}], "scaleDownDelaySeconds": 1}
SPEC = {
    "replicas": 2,
    "template": {"image": "agent:1"},
    "database": {"secretRef": {"name": "db"}},
    "traffic": {"provider": "Istio", "hosts": ["desk.example.com"]},
    "rollout": CANARY,
}


class NoPods:
    """Figures that nobody serves."""

    async def scrape(self, targets: Mapping[str, Target]) -> Mapping[str, str]:
        return {}


class NoPrometheus:
    """Queries that nobody answers."""

    async def ask(self, server: Server, queries: Sequence[str]) -> Mapping[str, Reply]:
        return {query: Reply(None, "there is none") for query in queries}


class Stage:
    """An engine on a fake API server, driven one reconcile at a time."""

    def __init__(self, api: Any, engine: Engine) -> None:
        self.api, self.engine = api, engine

    def apply(self, **spec: Any) -> None:
        before = self.api.get(SUPPORT_AGENTS, "shop", "desk") or {"metadata": {"name": "desk", "namespace": "shop"}}
        self.api.put(
            {**before, "apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "spec": {**SPEC, **spec}}
        )

    async def round(self) -> list[str]:
        """One reconcile with everything known; what it wrote, in order."""
        self.play()
        await self.caught_up()
        before = len(self.api.requests)
        self.engine.agent_changed(self.api.get(SUPPORT_AGENTS, "shop", "desk"))
        await self.engine.reconciler.reconcile(DESK)
        return [
            self.name(path)
            for method, path, _ in self.api.requests[before:]
            if method != "GET" and "/events" not in path
        ]

    def name(self, path: str) -> str:
        return "status" if path.endswith("/status") else "/".join(path.split("/")[-2:])

    def play(self) -> None:
        """Deployments have their pods, all of them ready."""
        for deployment in self.api.all(DEPLOYMENTS):
            for number in range(deployment["spec"]["replicas"]):
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                name = f"{deployment['metadata']['name']}-{number}"
                if self.api.get(PODS, "shop", name) is None:
                    ready = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"}
                    metadata = {"name": name, "namespace": "shop", "labels": labels}
                    self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": ready})

    async def caught_up(self) -> None:
        """The watches have told of everything."""
        async with asyncio.timeout(10):
            while not self.is_caught_up():  # noqa: ASYNC110 - whatever the watches bring
                await asyncio.sleep(0.005)

    def is_caught_up(self) -> bool:
        cache = self.engine.cache
        kinds = {watcher.resource.plural: watcher.resource for watcher in self.engine.watchers}
        return all(
            (known := cache.of_agent(DESK)) is not None
            and any(
                one["metadata"]["uid"] == live["metadata"]["uid"]
                and one["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
                for one in known
            )
            for (plural, _, _), live in self.api.objects.items()
            if plural in kinds and plural not in self.api.absent
        )

    async def settle(self) -> None:
        """Rounds until one writes nothing."""
        for _ in range(40):
            if not await self.round():
                return
        raise AssertionError("never at rest")

    @property
    def weights(self) -> dict[str, int]:
        """Percent by revision, as the route has them."""
        (*_, route) = self.api.get(VIRTUAL_SERVICES, "shop", "desk")["spec"]["http"]
        return {one["destination"]["host"].removeprefix("desk-"): one["weight"] for one in route["route"]}

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of one of the agent's conditions."""
        listed = self.api.get(SUPPORT_AGENTS, "shop", "desk")["status"]["conditions"]
        return next((one["status"], one["reason"]) for one in listed if one["type"] == kind)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(SUPPORT_AGENTS, "shop", "desk")["status"]["rollout"]
        return found

    def ask(self, action: str, revision: str) -> None:
        live = self.api.get(SUPPORT_AGENTS, "shop", "desk")
        prefix = "supportfleet.dev/action"
        live["metadata"]["annotations"] = {prefix: action, f"{prefix}-revision": revision, f"{prefix}-id": action}
        self.api.put(live)


class Interrupting(Applier):
    """Lets something happen between the children and the status."""

    meanwhile: Any = None

    async def carry_out(self, *arguments: Any) -> Any:
        done = await super().carry_out(*arguments)
        if Interrupting.meanwhile is not None:
            Interrupting.meanwhile()
        return done


@asynccontextmanager
async def staged(api: Any, client: Client) -> AsyncIterator[Stage]:
    engine = Engine(client, Metrics(), NoPods(), NoPrometheus(), workers=0)
    task = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(10):
            await asyncio.gather(*(watcher.synced.wait() for watcher in engine.watchers))
        yield Stage(api, engine)
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def stage(api: Any, client: Client) -> AsyncIterator[Stage]:
    """An agent at its first revision, and a second one waiting at its pause with half of the traffic."""
    async with staged(api, client) as stage:
        stage.apply()
        await stage.settle()
        stage.apply(template={"image": "agent:2"})
        await stage.settle()
        assert stage.state["currentWeight"] == 50
        yield stage


async def test_the_state_is_written_before_its_effects(stage: Stage) -> None:
    """Aborting: status first, then the route, and no pod in the same round."""
    stage.ask("abort", stage.state["canaryRevision"])
    written = await stage.round()
    assert written[:2] == ["status", "virtualservices/desk"]
    assert not [one for one in written if one.startswith("deployments/")]
    assert stage.state["phase"] == "Aborting"


async def test_the_snapshot_is_written_before_the_state(stage: Stage) -> None:
    """A revision that status names can be rendered, whatever becomes of the spec meanwhile."""
    stage.apply(template={"image": "agent:3"})
    written: list[str] = []
    while "deployments" not in "".join(written):
        written += await stage.round()
    named = next(number for number, one in enumerate(written) if one.startswith("controllerrevisions/"))
    assert written[named + 1] == "status"


async def test_a_round_at_rest_writes_nothing(stage: Stage) -> None:
    """Mid-rollout as well: the pause is no work."""
    assert await stage.round() == []


async def test_a_state_of_before_is_never_written_over_a_newer_one(stage: Stage) -> None:
    """A leader that decides on an old picture is refused by the API server, and nothing follows."""
    await stage.caught_up()
    stage.ask("abort", stage.state["canaryRevision"])
    stage.engine.agent_changed(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
    stage.api.fail(409, method="PATCH", path="/status")
    before = len(stage.api.writes())
    again = await stage.engine.reconciler.reconcile(DESK)
    assert again is not None
    assert again < 1
    assert len(stage.api.writes()) == before + 1
    assert stage.state["phase"] != "Aborting"


async def test_nothing_is_put_back_from_a_status_of_before(stage: Stage) -> None:
    """A leader whose picture is of before a rollback brings no weight back, though it has no move to make."""
    await stage.caught_up()
    old = copy.deepcopy(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
    stage.ask("abort", stage.state["canaryRevision"])
    await stage.round()
    await stage.caught_up()
    rolled_back = stage.weights
    key = stage.engine.agents.put(old)
    stage.engine.agents.remove(key, old["metadata"]["uid"])
    stage.engine.agents.put(old)
    before = stage.api.writes()
    again = await stage.engine.reconciler.reconcile(DESK)
    assert again is not None
    assert again < 1
    assert stage.api.writes() == before
    await stage.engine.reconciler.reconcile(DESK)
    assert stage.state["phase"] in {"Aborting", "RolledBack"}
    assert stage.weights == rolled_back


async def test_nothing_goes_on_while_the_routes_are_wrong(stage: Stage) -> None:
    """The API server refuses the route: no revision is promoted and no pod goes on a weight that nobody has."""
    first, second = stage.state["stableRevision"], stage.state["canaryRevision"]
    stage.api.fail(403, times=10_000, method="PATCH", path="virtualservices/desk")
    stage.ask("promote", second)
    for _ in range(6):
        await stage.round()
    assert (stage.state["stableRevision"], stage.state["phase"]) == (first, "Promoting")
    assert stage.api.get(DEPLOYMENTS, "shop", f"desk-{first}")["spec"]["replicas"] == 2
    assert stage.condition("TrafficRouted") == ("False", "Forbidden")
    stage.api.faults.clear()
    await stage.settle()
    assert stage.state["stableRevision"] == second
    assert set(stage.weights) == {second}


async def test_a_rollback_waits_for_no_route(stage: Stage) -> None:
    """While the route is refused the canary is aborted all the same, and keeps its pods until it has no requests."""
    first, second = stage.state["stableRevision"], stage.state["canaryRevision"]
    stage.api.fail(403, times=10_000, method="PATCH", path="virtualservices/desk")
    stage.ask("abort", second)
    for _ in range(4):
        await stage.round()
        await asyncio.sleep(0.4)
    assert stage.state["phase"] in {"Aborting", "RolledBack"}
    assert stage.api.get(DEPLOYMENTS, "shop", f"desk-{second}")["spec"]["replicas"] > 0
    stage.api.faults.clear()
    await stage.settle()
    assert set(stage.weights) == {first}
    assert stage.api.get(DEPLOYMENTS, "shop", f"desk-{second}")["spec"]["replicas"] == 0


async def test_a_status_is_never_written_over_a_newer_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another leader rolls back while this one is about to report: its report is refused, and what is newer is read."""
    await stage.caught_up()
    reconciler = stage.engine.reconciler
    applier = Interrupting(reconciler.client, reconciler.applier.cache, reconciler.applier.settlements)

    def roll_back() -> None:
        live = copy.deepcopy(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
        live["status"]["rollout"] |= {"phase": "RolledBack", "failedRevision": "r1"}
        stage.api.put(live)

    monkeypatch.setattr(Interrupting, "meanwhile", staticmethod(roll_back))
    live = copy.deepcopy(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
    live["status"]["replicas"] = 77
    stage.api.put(live)
    stage.engine.agent_changed(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
    again = await dataclasses.replace(reconciler, applier=applier).reconcile(DESK)
    assert again is not None
    assert again < 1
    assert stage.state["phase"] == "RolledBack"
    known = stage.engine.agents.get(DESK)
    assert known is not None
    assert known.raw["status"]["rollout"]["phase"] == "RolledBack"


async def test_no_pod_goes_in_the_round_that_takes_its_requests(stage: Stage) -> None:
    """A successor that comes long after the state was written sets the route first, however late it is for the pods."""
    second = stage.state["canaryRevision"]
    stage.api.fail(500, method="PATCH", path="virtualservices/desk")
    stage.ask("abort", second)
    with pytest.raises(ClusterError):
        await stage.round()
    await asyncio.sleep(1.2)
    written = await stage.round()
    assert "virtualservices/desk" in written
    assert not [one for one in written if one.startswith("deployments/")]
    await stage.settle()
    assert stage.api.get(DEPLOYMENTS, "shop", f"desk-{second}")["spec"]["replicas"] == 0


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_route_that_fails_for_now_is_tried_again(stage: Stage, status: int) -> None:
    """The state is written, the route is not: the round fails for the queue to repeat, and that sets the weight."""
    second = stage.state["canaryRevision"]
    stage.api.fail(status, method="PATCH", path="virtualservices/desk")
    stage.ask("abort", second)
    with pytest.raises(ClusterError):
        await stage.round()
    assert stage.state["phase"] == "Aborting"
    assert second in stage.weights
    assert (await stage.round())[0] == "virtualservices/desk"
    assert second not in stage.weights


async def test_istio_may_come_later(api: Any, client: Client, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    """The kind is looked for again and again; when it is there every agent is looked at, when it goes too."""
    assert LOOK_AGAIN > 1
    monkeypatch.setattr(watch_module, "LOOK_AGAIN", 0.02)
    monkeypatch.setattr(watch_module, "FIRST_DELAY", 0.01)
    api.absent.add("virtualservices")
    async with staged(api, client) as stage:
        stage.apply()
        await stage.settle()
        assert api.all(VIRTUAL_SERVICES) == []
        woken: list[AgentKey] = []
        monkeypatch.setattr(stage.engine.queue, "add", woken.append)
        api.absent.clear()
        await until(lambda: VIRTUAL_SERVICES.kind in stage.engine.reconciler.served())
        assert woken == [DESK]
        await stage.settle()
        assert len(api.all(VIRTUAL_SERVICES)) == 1
        api.absent.add("virtualservices")
        api.drop_watches()
        await until(lambda: VIRTUAL_SERVICES.kind not in stage.engine.reconciler.served())
        assert not [one for one in stage.engine.cache.of_agent(DESK) if one["kind"] == "VirtualService"]
        assert stage.engine.ailments() == []


async def test_hand_edits_of_routes_are_put_back(stage: Stage) -> None:
    """Mid-rollout somebody sends everything to the canary: the weights return."""
    live = stage.api.get(VIRTUAL_SERVICES, "shop", "desk")
    route = live["spec"]["http"][0]["route"]
    before = [one["weight"] for one in route]
    changed = {
        **live,
        "spec": {**live["spec"], "http": [{"route": [{**route[0], "weight": 1}, {**route[1], "weight": 99}]}]},
    }
    stage.api.put(changed)
    await stage.settle()
    assert [
        one["weight"] for one in stage.api.get(VIRTUAL_SERVICES, "shop", "desk")["spec"]["http"][0]["route"]
    ] == before
    assert (
        stage.api.get(SERVICES, "shop", "desk")["spec"]["selector"]["supportfleet.dev/revision"]
        == stage.state["stableRevision"]
    )
    assert dt.datetime.fromisoformat(stage.state["phaseStartedAt"]).tzinfo is not None


async def test_a_mass_update_holds_up_no_rollback(stage: Stage, until: Any) -> None:
    """The API server asks for patience and every worker waits for it with other agents: an abort is carried out now."""
    second = stage.state["canaryRevision"]
    await stage.caught_up()
    connection = stage.engine.reconciler.client._connection
    limiter = Limiter(10_000, 10_000)
    engine = Engine(Client(connection, limiter), Metrics(), NoPods(), NoPrometheus(), workers=2)
    task = asyncio.create_task(engine.run())
    try:
        await until(lambda: engine.synced)
        limiter.pause(60)
        for number in range(20):
            metadata = {"name": f"other-{number}", "namespace": "shop"}
            agent = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent", "metadata": metadata}
            engine.agent_changed(stage.api.put({**agent, "spec": SPEC}))
        await until(lambda: limiter.waiting == 2)
        stage.ask("abort", second)
        engine.agent_changed(stage.api.get(SUPPORT_AGENTS, "shop", "desk"))
        await until(lambda: second not in stage.weights)
        assert stage.state["phase"] == "Aborting"
        assert not stage.api.all(SUPPORT_AGENTS)[-1].get("status")
    finally:
        task.cancel()
        await asyncio.wait({task})
