from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.breaker import State as Breaker
from supportfleet_runtime.health.checks import broker_check, disk_check, http_check, model_api_check, redis_check
from supportfleet_runtime.health.monitor import (
    CHECK_SECONDS,
    OFTEN,
    SELDOM,
    Dependency,
    Monitor,
    State,
    after,
    interval,
)
from supportfleet_runtime.health.readiness import Readiness
from supportfleet_runtime.health.report import LEAST_MESSAGES, MOST_QUEUED, Observed, Overall, report
from supportfleet_runtime.health.window import SLOT_SECONDS, WINDOW_SECONDS, Figures, SlidingWindow
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.broker import Backend, Broker, BrokerUnavailableError

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WELL = State(healthy=True, checked_at=NOW, since=NOW)
ILL = State(healthy=False, failures=2, problem="no answer within 5 s", checked_at=NOW, since=NOW)


def says(*found: str | Exception | None) -> Callable[[], Awaitable[str | None]]:
    """A check that finds these, one after the other."""
    left = list(found)

    async def check() -> str | None:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    return check


def monitor_of(*dependencies: Dependency, **more: Any) -> Monitor:
    return Monitor(dependencies, Metrics(), lambda: NOW, **more)


class TestState:
    @given(st.lists(st.booleans(), max_size=20))
    def test_two_failures_and_one_success(self, failing: list[bool]) -> None:
        """Unhealthy exactly after two failures in a row and until the next success; unknown before either."""
        state = State()
        for number, fails in enumerate(failing):
            state = after(state, "broken" if fails else None, NOW)
            recent = failing[: number + 1]
            if not recent[-1]:
                assert state.healthy
            elif recent[-2:] == [True, True]:
                assert state.healthy is False
            else:
                assert state.healthy is (None if len(recent) == 1 else True)

    def test_since_is_when_it_changed(self) -> None:
        """Further checks with the same outcome don't move the time of the change."""
        later = NOW.replace(hour=13)
        state = after(after(WELL, "broken", NOW), "broken", NOW)
        assert (state.healthy, state.since) == (False, NOW)
        assert after(state, "broken", later).since == NOW
        assert after(state, None, later).since == later

    @given(st.floats(0, 1))
    def test_intervals_are_spread_around_what_was_asked(self, chance: float) -> None:
        """A check comes at most a tenth of the interval early or late."""
        assert 0.9 * OFTEN - 1e-9 <= interval(OFTEN, chance) <= 1.1 * OFTEN + 1e-9


class TestMonitor:
    async def test_states_become_metrics(self) -> None:
        """The gauge has no sample before anything is known, then 1, and 0 after the second failure in a row."""
        one = Dependency("database", says("down", None, "down", "down"), OFTEN)
        monitor = monitor_of(one)
        seen = []
        for _ in range(4):
            await monitor.look(one)
            seen.append(
                monitor._metrics.registry.get_sample_value("agent_dependency_healthy", {"dependency": one.name})
            )
        assert seen == [None, 1, 1, 0]

    async def test_a_check_that_hangs_fails(self) -> None:
        """Silence beyond the time limit is a failure."""

        async def hang() -> str | None:
            await asyncio.Event().wait()
            return None

        one = Dependency("claude", hang, OFTEN, timeout=0.001)
        assert (await monitor_of(one).look(one)).problem == "no answer within 0.001 s"

    async def test_a_check_that_is_broken_fails_without_its_words(self) -> None:
        """An exception nobody expected is told by its type, and the loop goes on."""
        one = Dependency("claude", says(ValueError("sk-ant-secret")), OFTEN)
        assert (await monitor_of(one).look(one)).problem == "the check failed: ValueError"

    async def test_each_in_its_own_time_and_never_twice_at_once(self) -> None:
        """In five minutes: checks every 10 s and every 30 s, spread; a slow one is never begun while it runs."""
        time, running = 0.0, dict.fromkeys("ab", 0)
        looks: dict[str, list[float]] = {"a": [], "b": []}
        sleepers: list[tuple[float, asyncio.Event]] = []

        async def sleep(seconds: float) -> None:
            wake = asyncio.Event()
            sleepers.append((time + seconds, wake))
            await wake.wait()

        def check(name: str, takes: float) -> Callable[[], Awaitable[str | None]]:
            async def run() -> str | None:
                assert not running[name], "a check began before the last had ended"
                running[name] += 1
                looks[name].append(time)
                await sleep(takes)
                running[name] -= 1
                return None

            return run

        monitor = monitor_of(
            Dependency("a", check("a", 4), OFTEN),
            Dependency("b", check("b", 0), SELDOM),
            clock=lambda: time,
            sleep=sleep,
            chance=random.Random(1).random,
        )
        loop = asyncio.create_task(monitor.run())
        while time < 300:
            for _ in range(5):
                await asyncio.sleep(0)
            time, wake = sleepers.pop(sleepers.index(min(sleepers, key=lambda one: one[0])))
            wake.set()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        assert 28 <= len(looks["a"]) <= 33
        assert 10 <= len(looks["b"]) <= 12
        gaps = [later - earlier for earlier, later in zip(looks["a"], looks["a"][1:], strict=False)]
        assert min(gaps) >= 9
        assert max(gaps) <= 11
        assert len({round(gap, 6) for gap in gaps}) > 1

    def test_checks_end_before_they_come_again(self) -> None:
        """The time limit of a check is shorter than the shortest interval."""
        assert interval(OFTEN, 0) > CHECK_SECONDS


class TestChecks:
    @pytest.mark.parametrize(
        ("status", "problem"),
        [
            (200, None),
            (404, None),
            (429, None),
            (401, "it refuses the credentials (HTTP 401)"),
            (529, "HTTP 529"),
            (503, "HTTP 503"),
        ],
    )
    async def test_the_model_api(self, status: int, problem: str | None) -> None:
        """It is well when it answers and takes the key, whether or not it has a list of models."""
        asked: list[Any] = []

        async def models(request: web.Request) -> web.Response:
            asked.append((request.headers["x-api-key"], request.headers["anthropic-version"]))
            return web.json_response({}, status=status)

        app = web.Application()
        app.router.add_get("/v1/models", models)
        async with TestServer(app) as server:
            check = model_api_check(str(server.make_url("/")), "sk-ant-key", lambda: Breaker.CLOSED)
            assert await check() == problem
        assert asked == [("sk-ant-key", "2023-06-01")]

    async def test_an_open_breaker_is_knowledge_enough(self) -> None:
        """While the breaker is open the model API is unwell, and not asked."""
        check = model_api_check("http://127.0.0.1:9", "k", lambda: Breaker.OPEN)
        assert "breaker is open" in (await check() or "")

    async def test_nobody_there(self) -> None:
        """A refused connection is told by its kind."""
        assert await http_check("http://127.0.0.1:9/healthz")() == "it can't be reached: ClientConnectorError"

    async def test_redis_away(self) -> None:
        """A Redis that can't be reached is told by the kind of error, without its address."""
        assert await redis_check("redis://:hunter2@127.0.0.1:9/0")() == "it can't be reached: ConnectionError"

    async def test_disk(self, tmp_path: Path) -> None:
        """SQLite's disk is well while there is room."""
        assert await disk_check(tmp_path, least=1)() is None
        assert "MiB are free" in (await disk_check(tmp_path, least=2**62)() or "")

    async def test_the_broker_tells_of_its_last_call(self) -> None:
        """A broker that fails is a problem until a call succeeds."""

        class Link:
            async def send(self, bodies: Any, *_priorities: Any) -> None:
                if bodies == [b"bad"]:
                    raise OSError

            async def close(self) -> None:
                pass

        async def connect() -> Any:
            return Link()

        broker = Broker(Backend(connect, ()))
        check = broker_check(lambda: broker.problem)
        assert await check() is None
        with pytest.raises(BrokerUnavailableError):
            await broker.send([b"bad"])
        assert await check() == "the queue's broker failed: OSError"
        await broker.send([b"good"])
        assert await check() is None


class Ticks:
    """A clock in seconds."""

    value = 1000.0

    def __call__(self) -> float:
        return self.value


class TestWindow:
    def test_nothing_is_no_rate(self) -> None:
        """An idle agent has neither an error rate nor a latency."""
        assert SlidingWindow(Ticks()).figures() == Figures(0, None, None)

    def test_callers_faults_are_not_counted(self) -> None:
        """Refused requests neither raise nor thin out the rate of errors."""
        window = SlidingWindow(Ticks())
        for status in (200, 202, 503, 500, 400, 401, 422, 429):
            window.record(status, 0.1)
        assert window.figures().error_rate == 0.5
        assert window.figures().messages == 4

    @given(st.lists(st.floats(0.001, 60), min_size=1, max_size=300))
    def test_p99_is_near_the_true_one(self, latencies: list[float]) -> None:
        """Never below the 99th percentile, and at most a tenth above it."""
        window = SlidingWindow(Ticks())
        for latency in latencies:
            window.record(200, latency)
        exact = sorted(latencies)[max(0, -(-99 * len(latencies) // 100) - 1)]
        found = window.figures().latency_p99
        assert found is not None
        assert exact * 0.999999 <= found <= exact * 1.1000001

    def test_what_is_older_than_five_minutes_is_forgotten(self) -> None:
        """A message counts for five minutes, less at most one slot; the slot that takes its place starts empty."""
        clock = Ticks()
        window = SlidingWindow(clock)
        window.record(500, 50)
        clock.value += WINDOW_SECONDS - SLOT_SECONDS
        assert window.figures().messages == 1
        clock.value += SLOT_SECONDS
        assert window.figures().messages == 0
        window.record(200, 0.01)
        assert window.figures() == Figures(1, 0.0, window.figures().latency_p99)
        assert (window.figures().latency_p99 or 1) < 0.02

    def test_memory_is_fixed(self) -> None:
        """However many messages, over however long, the window holds the same number of counters."""
        clock = Ticks()
        window = SlidingWindow(clock)
        before = [len(slot.latencies) for slot in window._slots]
        for _ in range(2000):
            clock.value += 7
            window.record(200, 1e9)
        assert [len(slot.latencies) for slot in window._slots] == before


def observed(**changed: Any) -> Observed:
    facts: dict[str, Any] = {
        "version": "0.1.0",
        "revision": "r1",
        "pod": "p",
        "at": NOW,
        "readiness": Readiness({"database": None, "schema": None, "worker": None}),
        "dependencies": {"database": WELL, "claude": WELL},
        "depth": 0,
        "figures": Figures(100, 0.0, 0.1),
        "breakers": {"messages-api": "closed"},
    }
    return Observed(**{**facts, **changed})


class TestReport:
    @pytest.mark.parametrize(
        ("changed", "overall", "named"),
        [
            ({}, "healthy", None),
            ({"readiness": Readiness({"worker": "the worker has not started yet"})}, "unhealthy", "api"),
            ({"dependencies": {"database": ILL, "claude": WELL}}, "unhealthy", "database"),
            ({"dependencies": {"database": WELL, "claude": ILL}}, "degraded", "claude"),
            ({"dependencies": {"database": WELL, "queue_broker": ILL}}, "degraded", "queue_broker"),
            ({"dependencies": {"database": State()}}, "healthy", None),
            ({"depth": MOST_QUEUED - 1}, "healthy", None),
            ({"depth": MOST_QUEUED}, "degraded", "queue_depth"),
            ({"depth": None}, "healthy", None),
            ({"figures": Figures(100, 0.06, 0.1)}, "degraded", "error_rate"),
            ({"figures": Figures(LEAST_MESSAGES - 1, 1.0, 60.0)}, "healthy", None),
            ({"figures": Figures(100, 0.0, 10.5)}, "degraded", "latency_p99_seconds"),
            ({"dependencies": {"database": ILL, "claude": ILL}, "depth": MOST_QUEUED}, "unhealthy", "database"),
        ],
    )
    def test_the_rule(self, changed: dict[str, Any], overall: str, named: str | None) -> None:
        """Unhealthy without readiness or database, degraded by anything else, and the reason is named."""
        found = report(observed(**changed))
        assert found.overall == overall
        assert found.overall.http_status == (503 if overall == "unhealthy" else 200)
        reasons = [reason.partition(":")[0] for reason in found.reasons]
        assert named in reasons if named else not reasons

    def test_the_live_look_at_the_database_leaves_the_api_alone(self) -> None:
        """One slow answer of the database makes the pod unready, not the report unhealthy: that takes two."""
        found = report(observed(readiness=Readiness({"database": "no answer within 0.8 s", "worker": None})))
        assert found.overall is Overall.HEALTHY

    def test_without_a_model_it_says_so(self) -> None:
        """An agent with the scripted provider has no Claude to be well or not."""
        assert report(observed(dependencies={"database": WELL})).components["claude"]["status"] == "not configured"


async def health(agent: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    async with agent.client.get("/v1/health", **more) as got:
        return got.status, json.loads(await got.text())


class TestEndpoint:
    async def test_the_whole_picture(self, start_agent: Any) -> None:
        """A running agent tells of api, claude, database, queue, error rate, p99, version and revision."""
        agent = await start_agent(AGENT_REVISION="r7")
        await agent.say("hello")
        for one in agent.parts.monitor._dependencies:
            await agent.parts.monitor.look(one)
        status, body = await health(agent)
        assert (status, body["status"], body["reasons"], body["revision"]) == (200, "healthy", [], "r7")
        components = body["components"]
        assert components.keys() == {
            "api", "claude", "database", "disk", "queue_depth", "error_rate", "latency_p99_seconds",
        }  # fmt: skip
        assert components["claude"]["status"] == "not configured"
        assert components["queue_depth"] == {"status": "healthy", "message": "ok", "value": 0, "limit": 10_000}
        assert components["error_rate"]["messages"] == 1
        assert 0 < components["latency_p99_seconds"]["value"] < 30
        assert await agent.metric('agent_dependency_healthy{dependency="database"}') == 1

    async def test_a_model_api_that_fails_degrades(self, start_agent: Any, messages_api: Any) -> None:
        """Being out of reach shows after two checks; messages are still taken; breakers are named with their state."""
        agent = await start_agent(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL="http://127.0.0.1:9")
        for one in agent.parts.monitor._dependencies * 2:
            await agent.parts.monitor.look(one)
        status, body = await health(agent)
        assert (status, body["status"]) == (200, "degraded")
        assert body["reasons"] == ["claude: it can't be reached: ClientConnectorError"]
        assert body["breakers"] == {"messages-api": "closed", "model": "closed"}
        assert messages_api.key not in json.dumps(body)

    async def test_a_tool_service_that_is_not_ready(self, start_agent: Any) -> None:
        """With TOOLS_URL the tool service's readiness is looked at, without a key; answers are given all the same."""
        asked: list[Any] = []

        async def readyz(request: web.Request) -> web.Response:
            asked.append(request.headers.get("Authorization") or request.headers.get("X-API-Key"))
            return web.Response(status=503)

        app = web.Application()
        app.router.add_get("/readyz", readyz)
        async with TestServer(app) as server:
            agent = await start_agent(TOOLS_URL=str(server.make_url("")), TOOLS_API_KEY="a-key-of-the-tool-service")
            for one in agent.parts.monitor._dependencies * 2:
                await agent.parts.monitor.look(one)
            status, body = await health(agent)
        assert (status, body["status"], body["reasons"]) == (200, "degraded", ["tools: HTTP 503"])
        assert set(asked) == {None}

    async def test_without_a_database_it_is_unhealthy(self, start_agent: Any) -> None:
        """503, the reasons, and an unknown depth, before anything was ever reached."""
        agent = await start_agent(until_ready=False, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:9/d")
        for one in agent.parts.monitor._dependencies * 2:
            await agent.parts.monitor.look(one)
        status, body = await health(agent)
        assert (status, body["status"]) == (503, "unhealthy")
        assert body["components"]["queue_depth"]["status"] == "unknown"
        assert "hunter2" not in json.dumps(body)

    async def test_it_is_behind_the_key(self, start_agent: Any) -> None:
        """Like all of /v1 it takes an API key where there are any."""
        key = "a-key-of-the-shop-backend"
        agent = await start_agent(API_KEYS=key)
        assert (await agent.client.get("/v1/health")).status == 401
        assert (await health(agent, headers={"X-API-Key": key}))[0] == 200
