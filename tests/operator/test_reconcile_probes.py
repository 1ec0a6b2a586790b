"""Probes in the background: nobody waits for one, findings wake the agent, and old questions are dropped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from supportfleet_operator.api import Prometheus as PrometheusSpec
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.prometheus import Reply, Server
from supportfleet_operator.cluster.resources import AgentKey
from supportfleet_operator.cluster.scraper import Target
from supportfleet_operator.reconcile.probes import Probe, Prober, targets
from supportfleet_operator.rollout import Query

DESK = AgentKey("shop", "desk")
PODS = {"r1": {"a": Target("10.0.0.1", 80), "b": Target("10.0.0.2", 80)}, "r2": {"c": Target("10.0.0.3", 80)}}
QUERY = Query("answers", "canary", "sum(up)")
ONE = b'{"status":"success","data":{"resultType":"scalar","result":[1,"0.5"]}}'


class Pods:
    """Answers once it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[list[str]] = []
        self.bug: Exception | None = None

    async def scrape(self, targets: Mapping[str, Target]) -> Mapping[str, str]:
        self.asked.append(sorted(targets))
        await self.open.wait()
        if self.bug is not None:
            raise self.bug
        return {name: f"text of {name}" for name in targets if name != "b"}


class Asked:
    """A Prometheus that remembers by whom it was asked."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    async def ask(self, server: Server, queries: Sequence[str]) -> Mapping[str, Reply]:
        self.servers.append(server)
        return {query: Reply(ONE) for query in queries}


class Bench:
    """A prober, what it asks, and whom it woke."""

    def __init__(self, client: Client) -> None:
        self.pods, self.prometheus, self.woken = Pods(), Asked(), list[AgentKey]()
        self.prober = Prober(client, self.pods, self.prometheus, self.woken.append)

    def look(self, about: str = "first", *, every: float = 60.0, **more: Any) -> Any:
        return self.prober.look(DESK, "analysis", Probe(about, every, **{"pods": PODS, **more}))


@pytest.fixture
async def bench(client: Client) -> Any:
    one = Bench(client)
    yield one
    await one.prober.stop()


async def test_findings_wake_the_agent(bench: Bench, until: Callable[..., Any]) -> None:
    """The first look only starts it; the agent is woken, and the next look has the texts by revision and pod."""
    assert bench.look() is None
    await until(lambda: bench.woken == [DESK])
    found = bench.look()
    assert found.figures == {"r1": {"a": "text of a"}, "r2": {"c": "text of c"}}
    assert bench.pods.asked == [["a", "b", "c"]]


async def test_one_at_a_time(bench: Bench) -> None:
    """However often the agent is looked at meanwhile, its pods are asked once."""
    bench.pods.open.clear()
    for _ in range(5):
        assert bench.look() is None
        await asyncio.sleep(0)
    assert len(bench.pods.asked) == 1


async def test_an_old_question_is_dropped(bench: Bench, until: Callable[..., Any]) -> None:
    """Findings of the step before say nothing about this one, whether they are there or under way."""
    bench.look("first")
    await until(lambda: bench.woken)
    assert bench.look("second") is None
    bench.pods.open.clear()
    bench.look("third")
    await asyncio.sleep(0.01)
    assert bench.look("fourth") is None
    bench.pods.open.set()
    await until(lambda: len(bench.woken) >= 2)
    await until(lambda: bench.look("fourth"))
    assert bench.look("fourth").about == "fourth"


async def test_old_findings_are_replaced(bench: Bench, until: Callable[..., Any]) -> None:
    """While the same question stands they are given again, and asked for anew once they are old."""
    bench.look(every=0.0)
    await until(lambda: bench.woken)
    first = bench.look(every=60.0)
    assert first is bench.look(every=60.0)
    assert bench.look(every=0.0) is first
    await until(lambda: len(bench.woken) == 2)
    assert bench.look(every=60.0) is not first


async def test_what_nobody_wants_ends(bench: Bench) -> None:
    """A look with no probe, an agent that is gone and a process that stops leave nothing running and nothing kept."""
    bench.pods.open.clear()
    for end in (lambda: bench.prober.look(DESK, "analysis", None), lambda: bench.prober.forget(DESK)):
        bench.look()
        await asyncio.sleep(0)
        (_, task), *_ = bench.prober._running.values()
        end()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()
        assert not bench.prober._running
    assert bench.woken == []


async def test_a_bug_is_said_and_stops_nothing(
    bench: Bench, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The agent goes on without figures, which promotes nothing, and the log has the trace."""
    bench.pods.bug = RuntimeError("a bug")
    bench.look()
    await until(lambda: bench.woken)
    assert bench.look().figures == {}
    assert "a bug" in caplog.text


class TestPrometheus:
    SPEC = PrometheusSpec.model_validate(
        {"address": "http://p:9090", "timeoutSeconds": 3, "bearerTokenSecretRef": {"name": "metrics"}}
    )

    def secret(self, api: Any, **data: str) -> None:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
        api.put(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "metrics", "namespace": "shop"},
                "data": encoded,
            }
        )

    async def found(self, bench: Bench, until: Callable[..., Any]) -> Any:
        bench.look(queries=(QUERY,), prometheus=self.SPEC)
        await until(lambda: bench.woken)
        return bench.look(queries=(QUERY,), prometheus=self.SPEC)

    async def test_it_is_asked_with_the_secrets_token(self, bench: Bench, api: Any, until: Callable[..., Any]) -> None:
        """The token is read from the agent's own namespace, without the line end that files have."""
        self.secret(api, token="hush\n")
        found = await self.found(bench, until)
        assert found.answers[QUERY].value == 0.5
        assert bench.prometheus.servers == [Server("http://p:9090", 3, "hush")]

    @pytest.mark.parametrize("data", [None, {"other": "x"}, {"token": "\u00fc"}])
    async def test_without_the_token_nobody_is_asked(
        self, bench: Bench, api: Any, until: Callable[..., Any], data: dict[str, str] | None
    ) -> None:
        """A missing Secret or key, or one that is no token, is an unknown figure with the reason."""
        if data is not None:
            self.secret(api, **data)
        found = await self.found(bench, until)
        assert found.answers[QUERY].unknown
        assert "metrics" in found.answers[QUERY].message
        assert bench.prometheus.servers == []

    async def test_a_secret_that_may_not_be_read(self, bench: Bench, api: Any, until: Callable[..., Any]) -> None:
        """Rights that were taken are said, and the agent goes on."""
        self.secret(api, token="hush")
        api.fail(403, path="/secrets/", body={"message": "no rights"})
        assert "no rights" in (await self.found(bench, until)).answers[QUERY].message


def test_the_oldest_pods_are_asked_and_only_those_with_an_address() -> None:
    """The same ones each time, as far as possible, and no more than so many."""
    pods = [
        {"metadata": {"name": name, "creationTimestamp": at}, "status": {"podIP": address}}
        for name, at, address in (
            ("new", "3", "10.0.0.3"),
            ("none", "0", None),
            ("old", "1", "10.0.0.1"),
            ("mid", "2", "10.0.0.2"),
        )
    ]
    assert list(targets(pods, 8080, 2)) == ["old", "mid"]
    assert targets(pods, 8080, 9)["new"] == Target("10.0.0.3", 8080)
