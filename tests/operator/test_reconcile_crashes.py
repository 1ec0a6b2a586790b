"""An operator that dies at a write: before it, or after it with the answer lost. Its successor knows only the cluster.

Every write of a whole rollout is such a moment, and each is walked. What must hold is what customers see: the shares
that routes ever had, in order, are those of a rollout with no crash, and so are the steps in the status.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession

from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import Client, Request
from supportfleet_operator.cluster.connection import Connection
from supportfleet_operator.cluster.limiter import Limiter
from supportfleet_operator.cluster.prometheus import Reply, Server
from supportfleet_operator.cluster.recorder import Recorder
from supportfleet_operator.cluster.resources import (
    DEPLOYMENTS,
    OPTIONAL,
    PODS,
    SUPPORT_AGENTS,
    VIRTUAL_SERVICES,
    WATCHED,
    AgentKey,
)
from supportfleet_operator.cluster.scraper import Target
from supportfleet_operator.reconcile.agents import Agents
from supportfleet_operator.reconcile.apply import Applier
from supportfleet_operator.reconcile.probes import Prober
from supportfleet_operator.reconcile.reconcile import Reconciler
from supportfleet_operator.reconcile.references import ReferenceReader
from supportfleet_operator.resources import AGENT

DESK = AgentKey("shop", "desk")
KINDS = (*WATCHED, *OPTIONAL)
STEPS = [
    {"setWeight": 10},
    {"setWeight": 30},
    {"pause": {"durationSeconds": 5}},
    {"setMirror": 20},
    {"setMirror": 0},
]
SPEC = {
    "replicas": 2,
    "template": {"image": "agent:1"},
    "database": {"secretRef": {"name": "db"}},
    "traffic": {"provider": "Istio", "hosts": ["desk.example.com"]},
    "rollout": {"strategy": "Canary", "steps": STEPS, "scaleDownDelaySeconds": 5},
}
SERVED = frozenset(resource.kind for resource in OPTIONAL)


class Killed(BaseException):
    """What ends an operator for good, past every handler of errors."""


class Nobody:
    """Neither pods nor a Prometheus answer."""

    async def scrape(self, targets: Mapping[str, Target]) -> Mapping[str, str]:
        return {}

    async def ask(self, server: Server, queries: Sequence[str]) -> Mapping[str, Reply]:
        return {}


class MortalClient(Client):
    """Dies at the write with a number, before it is sent or once it is answered."""

    written = 0
    dies_at = -1
    after = False

    async def _answer(self, request: Request) -> Any:
        if request.method == "GET" or request.path.endswith("/events"):
            return await super()._answer(request)
        number, self.written = self.written, self.written + 1
        if number == self.dies_at and not self.after:
            raise Killed
        answer = await super()._answer(request)
        if number == self.dies_at:
            raise Killed
        return answer


class Life:
    """One agent, and operators that live one after the other."""

    def __init__(self, api: Any, client: MortalClient) -> None:
        self.api, self.client = api, client
        self.now = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
        self.operator = self.born()
        self.shares: list[dict[str, int]] = []
        self.steps: list[tuple[Any, ...]] = []
        self.deaths = 0

    def born(self) -> Reconciler:
        """An operator with nothing in its memory."""
        cache = Cache(AGENT, lambda key: None)
        return Reconciler(
            agents=Agents(),
            cache=cache,
            client=self.client,
            applier=Applier(self.client, cache, {}),
            references=ReferenceReader(self.client, lambda: 0.0),
            recorder=Recorder(self.client, "test"),
            prober=Prober(self.client, Nobody(), Nobody(), lambda key: None),
            served=lambda: SERVED,
            clock=lambda: self.now,
        )

    def apply(self, **spec: Any) -> None:
        before = self.api.get(SUPPORT_AGENTS, "shop", "desk") or {"metadata": {"name": "desk", "namespace": "shop"}}
        head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
        self.api.put({**before, **head, "spec": {**SPEC, **spec}})

    async def round(self) -> bool:
        """One reconcile with everything known; whether it, or the cluster, did something."""
        before, deaths = self.api.version, self.deaths
        for resource in KINDS:
            self.operator.cache.replace(resource, None, self.api.all(resource))
        self.operator.agents.put(self.api.get(SUPPORT_AGENTS, "shop", "desk"))
        try:
            await self.operator.reconcile(DESK)
        except Killed:
            self.deaths += 1
            self.operator = self.born()
        self.look()
        self.play()
        return bool(self.api.version != before) or self.deaths != deaths

    def look(self) -> None:
        """Remember what customers have, and what the status says."""
        for _, _, found in self.api.log:
            if found["kind"] == VIRTUAL_SERVICES.kind:
                route = found["spec"]["http"][-1]["route"]
                self.remember(self.shares, {one["destination"]["host"]: one["weight"] for one in route})
            elif found["kind"] == SUPPORT_AGENTS.kind and (state := found.get("status", {}).get("rollout")):
                names = ("phase", "stableRevision", "canaryRevision", "currentStep", "currentWeight", "currentMirror")
                self.remember(self.steps, tuple(state.get(name) for name in names))
        self.api.log.clear()

    def remember(self, seen: list[Any], now: Any) -> None:
        if not seen or seen[-1] != now:
            seen.append(now)

    def play(self) -> None:
        """Deployments have their pods, all of them ready."""
        wanted = {}
        for deployment in self.api.all(DEPLOYMENTS):
            name, labels = deployment["metadata"]["name"], deployment["spec"]["template"]["metadata"]["labels"]
            wanted |= {f"{name}-{number}": labels for number in range(deployment["spec"]["replicas"])}
        live = {pod["metadata"]["name"] for pod in self.api.all(PODS)}
        for name in wanted.keys() - live:
            ready = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"}
            metadata = {"name": name, "namespace": "shop", "labels": wanted[name]}
            self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": ready})
        for name in live - wanted.keys():
            self.api.remove(PODS, "shop", name)

    async def quiet(self) -> None:
        """Rounds until nothing happens at this time."""
        for _ in range(60):
            if not await self.round():
                return
        raise AssertionError("never at rest")

    async def rest(self) -> None:
        """Rounds until nothing happens, at this time and after each delay that there is."""
        for _ in range(3):
            await self.quiet()
            self.now += dt.timedelta(seconds=6)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(SUPPORT_AGENTS, "shop", "desk")["status"]["rollout"]
        return found

    def pods(self) -> dict[str, int]:
        return {one["metadata"]["name"]: one["spec"]["replicas"] for one in self.api.all(DEPLOYMENTS)}


Story = Callable[[Life], Any]


async def promoted(life: Life) -> None:
    """A new image goes through all steps."""
    life.apply(template={"image": "agent:2"})
    await life.rest()


async def aborted(life: Life) -> None:
    """A person aborts at the pause."""
    live = life.api.get(SUPPORT_AGENTS, "shop", "desk")
    prefix = "supportfleet.dev/action"
    words = {prefix: "abort", f"{prefix}-revision": life.state["canaryRevision"], f"{prefix}-id": "1"}
    life.api.put({**live, "metadata": {**live["metadata"], "annotations": words}})
    await life.rest()


async def superseded(life: Life) -> None:
    """Another image comes at the pause, and gets as far."""
    life.apply(template={"image": "agent:3"})
    await life.quiet()


async def begun(life: Life) -> None:
    """A new image is at its pause."""
    life.apply(template={"image": "agent:2"})
    await life.quiet()


async def nothing(life: Life) -> None:
    """The first revision is at rest."""


class Anonymous:
    """What a connection without credentials needs of a configuration."""

    tls_server_name = None

    async def get_api_key_with_prefix(self, name: str, alias: str) -> str | None:
        return None


@pytest.fixture
async def lives(api: Any) -> AsyncIterator[Callable[[Story], Any]]:
    """Gives, after a story that is told once, lives that begin where it ends."""
    async with ClientSession() as session:
        connection = Connection(api.url, session, Anonymous())

        def born() -> Life:
            return Life(api, MortalClient(connection, Limiter(10_000, 10_000)))

        async def after(story: Story) -> Callable[[], Life]:
            first = born()
            first.apply()
            await first.rest()
            await story(first)
            objects = copy.deepcopy(api.objects)

            def again() -> Life:
                api.objects = copy.deepcopy(objects)
                api.log.clear()
                life = born()
                life.now, life.shares, life.steps = first.now, first.shares[-1:], first.steps[-1:]
                return life

            return again

        yield after


@pytest.mark.parametrize(("before", "story"), [(nothing, promoted), (begun, aborted), (begun, superseded)])
@pytest.mark.parametrize("after", [False, True], ids=["unsent", "unanswered"])
async def test_no_write_is_a_bad_moment_to_die(lives: Any, before: Story, story: Story, *, after: bool) -> None:
    """At every write of the story: the same shares in the same order, the same steps, the same end."""
    again = await lives(before)
    steady = again()
    await story(steady)
    assert steady.deaths == 0
    assert steady.client.written > 5
    for number in range(steady.client.written):
        killed = again()
        killed.client.dies_at, killed.client.after = number, after
        await story(killed)
        assert killed.deaths == 1, number
        assert killed.shares == steady.shares, number
        assert killed.steps == steady.steps, number
        assert killed.pods() == steady.pods(), number


async def test_the_steady_story_is_what_the_spec_says(lives: Any) -> None:
    """The walk would prove nothing on a rollout that goes nowhere."""
    life = (await lives(nothing))()
    await promoted(life)
    (second,) = life.shares[-1]
    assert [shares.get(second, 0) for shares in life.shares] == [0, 10, 30, 100]
    assert 20 in [step[-1] for step in life.steps]
    assert sum(life.pods().values()) == 2
