from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from supportfleet_runtime.config import load
from supportfleet_runtime.errors import ConfigurationError
from supportfleet_runtime.gateway.buckets import Bucket, MemoryBuckets, Policy, take
from supportfleet_runtime.gateway.server import make_runner
from supportfleet_runtime.gateway.shared_buckets import PAUSE, SharedBuckets

MESSAGE = {"customer_id": "cust-1001", "text": "hello"}


class TestBucket:
    @given(
        quota=st.integers(1, 50),
        window=st.floats(0.1, 120),
        pauses=st.lists(st.floats(0, 30) | st.just(0.0), max_size=120),
    )
    def test_never_more_than_the_quota(self, quota: int, window: float, pauses: list[float]) -> None:
        """In any span of time no more is allowed than the quota and what the span brings; and who waits is let in."""
        policy = Policy(quota, window)
        bucket, now, allowed = None, 0.0, []
        for pause in pauses:
            now += pause
            bucket, standing = take(bucket, now, policy)
            assert 0 <= standing.remaining <= quota
            assert bucket.level == pytest.approx(quota - standing.full_in * policy.rate)
            if standing.allowed:
                allowed.append(now)
            else:
                assert take(bucket, now + standing.retry_in * 1.0001 + 1e-6, policy)[1].allowed
        for first, start in enumerate(allowed):
            for last, end in enumerate(allowed[first:], 1):
                assert last <= quota + (end - start) * policy.rate + 1e-6

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        """Neither tokens nor an error."""
        bucket, standing = take(Bucket(0.5, 100.0), 50.0, Policy(10, 10))
        assert not standing.allowed
        assert bucket == Bucket(0.5, 100.0)


class TestMemory:
    def test_customers_are_apart(self) -> None:
        """One customer's requests are not another's."""
        buckets = MemoryBuckets(Policy(2, 60), clock=lambda: 0.0)
        assert [buckets.take_now("a").allowed for _ in range(3)] == [True, True, False]
        assert buckets.take_now("b").allowed

    def test_it_is_bounded(self) -> None:
        """However many customers ask, only so many are remembered; who asks all the time is."""
        buckets = MemoryBuckets(Policy(10, 60), clock=lambda: 0.0, largest=100)
        for number in range(1000):
            buckets.take_now(f"customer-{number}")
            allowed = buckets.take_now("busy").allowed
            assert allowed == (number < 10)
        assert len(buckets) <= 100

    def test_full_buckets_are_forgotten(self) -> None:
        """Who has not asked for a while takes no room."""
        now = 0.0
        buckets = MemoryBuckets(Policy(10, 60), clock=lambda: now)
        for number in range(50):
            buckets.take_now(f"customer-{number}")
        now = 60.0
        for _ in range(30):
            buckets.take_now("another")
        assert len(buckets) == 1


class TestGateway:
    async def test_too_much_is_429(self, start_agent: Any) -> None:
        """Beyond the quota a customer is told when to come back; others aren't affected, and headers tell all."""
        agent = await start_agent(RATE_LIMIT="3")
        for left in (2, 1, 0):
            async with agent.client.post("/v1/messages", json=MESSAGE) as got:
                assert got.status == 200
                assert got.headers["RateLimit-Policy"] == '"customer";q=3;w=60'
                assert got.headers["RateLimit"].startswith(f'"customer";r={left};t=')
        async with agent.client.post("/v1/messages", json=MESSAGE) as got:
            assert got.status == 429
            assert got.content_type == "application/problem+json"
            assert 1 <= int(got.headers["Retry-After"]) <= math.ceil(60 / 3)
        path = "/v1/tasks/task_" + "0" * 26
        async with agent.client.get(path, params={"customer_id": "cust-1001"}) as got:
            assert got.status == 429, "all that a customer asks for counts"
        async with agent.client.get(path, params={"customer_id": "cust-1002"}) as got:
            assert got.status == 404
            assert '"customer";r=2;' in got.headers["RateLimit"], "errors count and tell, too"
        async with agent.client.post("/v1/messages", json={**MESSAGE, "customer_id": "cust-1002"}) as got:
            assert got.status == 200

    async def test_copies_are_counted_apart(self, start_agent: Any) -> None:
        """A mirrored message takes nothing of its customer's quota, and a forged host gets no more than the quota."""
        agent = await start_agent(RATE_LIMIT="1")
        headers = {"Host": "agent-shadow"}
        statuses = []
        for sent in (headers, headers, {}):
            async with agent.client.post("/v1/messages", json=MESSAGE, headers=sent) as got:
                statuses.append(got.status)
        assert statuses == [200, 429, 200]

    async def test_it_can_be_off(self, start_agent: Any) -> None:
        """With 0 nothing is limited, and no header says so."""
        agent = await start_agent(RATE_LIMIT="0")
        async with agent.client.post("/v1/messages", json=MESSAGE) as got:
            assert "RateLimit" not in got.headers


class TestRedisAway:
    async def test_each_counts_for_itself(self) -> None:
        """Where Redis doesn't answer the pod goes on counting, says so once, and tries again after a while."""
        with socket.socket() as listener:  # bound, and not listening: connections are refused
            listener.bind(("127.0.0.1", 0))
            now = 0.0
            url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
            buckets = SharedBuckets(url, "ns/agent", Policy(3, 60), clock=lambda: now)
            with capture_logs() as logs:
                allowed = [(await buckets.take("cust-1001")).allowed for _ in range(4)]
                now = PAUSE
                await buckets.take("cust-1001")
            await buckets.close()
        assert allowed == [True, True, True, False]
        assert [line["event"] for line in logs] == ["rate_limits_not_shared"]

    async def test_a_silent_one_costs_little(self) -> None:
        """A Redis that accepts connections and never answers is given up after a moment, once for all who ask."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
            buckets = SharedBuckets(url, "ns/agent", Policy(3, 60), timeout=0.05)
            with capture_logs() as logs:
                assert (await buckets.take("cust-1001")).allowed
                assert (await buckets.take("cust-1001")).allowed
            await buckets.close()
        assert len(logs) == 1


class TestOrigins:
    PREFLIGHT: Mapping[str, str] = {"Access-Control-Request-Method": "POST"}

    async def test_off_by_default(self, start_agent: Any) -> None:
        """Unless configured no page of another site may call, and a preflight is a method that isn't there."""
        agent = await start_agent()
        headers = {"Origin": "https://shop.example", **self.PREFLIGHT}
        async with agent.client.options("/v1/messages", headers=headers) as got:
            assert got.status == 405
            assert not [name for name in got.headers if name.startswith("Access-Control")]

    async def test_pages_that_may(self, start_agent: Any) -> None:
        """A page of the list gets its preflight answered without a key, and may see answers and problems alike."""
        agent = await start_agent(CORS_ORIGINS="https://shop.example,http://localhost:3000", API_KEYS="k" * 20)
        origin = {"Origin": "https://shop.example"}
        async with agent.client.options("/v1/messages", headers={**origin, **self.PREFLIGHT}) as got:
            assert got.status == 204
            assert "Idempotency-Key" in got.headers["Access-Control-Allow-Headers"]
        async with agent.client.post("/v1/messages", json=MESSAGE, headers=origin) as got:
            assert got.status == 401, "a preflight is no key"
            assert got.headers["Access-Control-Allow-Origin"] == "https://shop.example"
            assert got.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in got.headers

    @pytest.mark.parametrize("origin", ["https://evil.example", "https://shop.example.evil.example", "null", ""])
    async def test_pages_that_may_not(self, start_agent: Any, origin: str) -> None:
        """Any other page is told nothing that would let its script go on."""
        agent = await start_agent(CORS_ORIGINS="https://shop.example")
        async with agent.client.options("/v1/messages", headers={"Origin": origin, **self.PREFLIGHT}) as got:
            assert not [name for name in got.headers if name.startswith("Access-Control-Allow")]

    @pytest.mark.parametrize("origins", ["*", "shop.example", "https://shop.example/path", "https://a https://B"])
    def test_what_is_no_origin(self, origins: str) -> None:
        """A list that no browser's origin could match, or any would, is refused at the start."""
        with pytest.raises(ConfigurationError, match="CORS_ORIGINS"):
            load({"CORS_ORIGINS": origins, "CONFIG_DIR": "/nonexistent"})


class TestSlowness:
    async def test_a_head_that_drips(self) -> None:
        """A connection that never completes a head is closed, though bytes keep coming."""
        runner = make_runner(web.Application(), keepalive_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(b"GET / HTTP/1.1\r\nX: ")
            async with asyncio.timeout(10):
                assert await reader.read() == b""
            writer.close()
        finally:
            await runner.cleanup()
