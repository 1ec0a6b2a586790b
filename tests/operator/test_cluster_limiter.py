"""The rate limit and its lane for urgent requests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.cluster.limiter import Bucket, Limiter


@given(
    rate=st.floats(1, 1000),
    burst=st.floats(1, 100),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: float, gaps: list[float]) -> None:
    """Whatever the timing, the tokens taken within a time are at most the burst and the rate over it."""
    bucket, now, taken = Bucket(rate, burst, burst, 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now) == 0.0
        assert taken <= burst + rate * now + 1e-6


@given(rate=st.floats(0.5, 1000), wait=st.floats(0, 0.9))
def test_waiting_as_told_is_enough(rate: float, wait: float) -> None:
    """After the delay that an empty bucket names, there is a token."""
    bucket = Bucket(rate, 1, wait, 0.0)
    delay = bucket.take(0.0)
    assert delay > 0
    assert bucket.take(delay * 1.000001 + 1e-9) == 0.0


async def test_urgent_requests_overtake_the_bulk() -> None:
    """With hundreds waiting, an urgent request is the next one through."""
    limiter = Limiter(rate=50, burst=1)
    order: list[str] = []

    async def one(name: str, *, urgent: bool = False) -> None:
        await limiter.acquire(urgent=urgent)
        order.append(name)

    bulk = [asyncio.create_task(one(f"bulk{number}")) for number in range(200)]
    await asyncio.sleep(0)
    await one("rollback", urgent=True)
    assert order.index("rollback") <= 2
    for task in bulk:
        task.cancel()
    await asyncio.gather(*bulk, return_exceptions=True)


async def test_who_gives_up_waiting_costs_no_token() -> None:
    """Cancelled waiters are passed over, and the next one gets their turn."""
    limiter = Limiter(rate=5, burst=1)
    await limiter.acquire()
    gone = [asyncio.create_task(limiter.acquire()) for _ in range(50)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    async with asyncio.timeout(5):  # their tokens would take ten
        await limiter.acquire()


async def test_a_pause_ends() -> None:
    """The bulk goes on after the pause the server asked for."""
    limiter = Limiter(rate=1000, burst=10)
    limiter.pause(0.1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await limiter.acquire()
    assert loop.time() - started >= 0.09


@pytest.mark.parametrize("urgent", [True, False])
async def test_a_free_limiter_does_not_wait(urgent: bool) -> None:  # noqa: FBT001 - a parameter
    """Within the burst nobody waits."""
    limiter = Limiter(rate=0.01, burst=5)
    async with asyncio.timeout(10):
        for _ in range(5):
            await limiter.acquire(urgent=urgent)
