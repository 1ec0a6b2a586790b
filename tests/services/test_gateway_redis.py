"""Rate limits that gateways share through a real Redis."""

from __future__ import annotations

import asyncio
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from supportfleet_runtime.gateway.buckets import Policy
from supportfleet_runtime.gateway.shared_buckets import PAUSE, SharedBuckets

_brokers = runpy.run_path(str(Path(__file__).with_name("queue_brokers.py")))

PATIENCE = 5.0
"""A Redis that is slow, as on a busy machine, is none that is away."""

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server(unavailable: Any) -> Iterator[Any]:
    with _brokers["running"]("redis", unavailable) as started:
        yield started


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runtime.db'}"


async def test_two_gateways_count_together(start_agent: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever gateways a customer asks, the quota is one; no key of Redis holds their name, and all expire."""
    monkeypatch.setitem(SharedBuckets.__init__.__kwdefaults__, "timeout", PATIENCE)
    agents = [await start_agent(REDIS_URL=server.url, RATE_LIMIT="10", AGENT_NAME="together") for _ in range(2)]

    async def ask(number: int) -> int:
        body = {"customer_id": "ada@example.com", "text": "hello"}
        async with agents[number % 2].client.post("/v1/messages", json=body) as got:
            return int(got.status)

    statuses = Counter(await asyncio.gather(*(ask(number) for number in range(30))))
    assert statuses[200] + statuses[429] == 30
    assert 10 <= statuses[200] <= 13, "the quota, and what came in while the requests ran"
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        keys = list(client.scan_iter("supportfleet:default/together:*"))
        assert len(keys) == 1
        assert "ada" not in keys[0]
        assert 0 < client.pttl(keys[0]) <= 61_000


async def test_an_outage_is_survived(server: Any) -> None:
    """While Redis is away each counts for itself; once it is back they count together again."""
    now = 0.0
    both = [
        SharedBuckets(server.url, "ns/outage", Policy(4, 3600), clock=lambda: now, timeout=PATIENCE) for _ in range(2)
    ]
    assert (await both[0].take("cust-1001")).remaining == 3
    assert (await both[1].take("cust-1001")).remaining == 2
    server.kill()
    assert [(await one.take("cust-1001")).remaining for one in both] == [3, 3]
    server.start()
    now = PAUSE
    assert (await both[0].take("cust-1001")).remaining <= 2
    assert not [standing for standing in [await both[1].take("cust-1001") for _ in range(4)] if standing.remaining > 1]
    for one in both:
        await one.close()


async def test_the_health_loop_sees_it(start_agent: Any, server: Any) -> None:
    """A Redis that answers is a healthy dependency of the agent."""
    agent = await start_agent(REDIS_URL=server.url)
    (redis_,) = [one for one in agent.parts.monitor._dependencies if one.name == "redis"]
    assert (await agent.parts.monitor.look(redis_)).healthy
