"""Leader election: one leads, the others wait, and a leader that cannot renew stops in time."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.cluster import lease as lease_module
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.lease import DEADLINE, DURATION, Elector, Sighting, decide, record, sight
from supportfleet_operator.cluster.resources import LEASES
from supportfleet_operator.errors import LeadershipLost

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def held(holder: str, renewed: str = "t0") -> dict[str, Any]:
    return {"metadata": {"name": "op", "namespace": "sys"}, "spec": {"holderIdentity": holder, "renewTime": renewed}}


class TestDeciding:
    def test_a_free_lease_is_taken_at_once(self) -> None:
        """A released lease has no holder."""
        assert decide(sight(None, held(""), 0.0), "me", 0.0) == "take"

    def test_our_own_lease_is_taken_at_once(self) -> None:
        """A container that was restarted in its pod goes on leading."""
        assert decide(sight(None, held("me"), 0.0), "me", 0.0) == "take"

    @given(st.floats(0, DURATION - 0.001))
    def test_somebody_elses_is_left_alone_for_its_duration(self, waited: float) -> None:
        """However its times read, a lease seen to change less than its duration ago is not taken."""
        assert decide(sight(None, held("other", "1999-01-01"), 50.0), "me", 50.0 + waited) == "wait"

    def test_one_that_is_not_renewed_is_taken(self) -> None:
        """After its duration without a change the holder is dead."""
        first = sight(None, held("other"), 50.0)
        second = sight(first, held("other"), 50.0 + DURATION)
        assert second.at == 50.0
        assert decide(second, "me", 50.0 + DURATION) == "take"

    def test_every_renewal_starts_the_wait_anew(self) -> None:
        """A change of renewTime is a sign of life, even with clocks that disagree."""
        first = sight(None, held("other", "t0"), 0.0)
        second = sight(first, held("other", "t1"), DURATION - 1)
        assert decide(second, "me", DURATION) == "wait"

    def test_the_holder_gives_up_before_anyone_may_take_over(self) -> None:
        """Two can never lead at once: the deadline is shorter than the duration, by more than a retry."""
        assert DEADLINE + lease_module.RETRY <= DURATION
        assert DURATION + lease_module.RETRY < 20


class TestRecord:
    def test_a_new_holder_counts_as_a_transition(self) -> None:
        """The count and acquireTime tell of the change; a renewal leaves both alone."""
        taken = record("me", held("other"), name="op", namespace="sys", when=NOW)
        assert taken["spec"]["leaseTransitions"] == 1
        again = record("me", taken, name="op", namespace="sys", when=NOW + dt.timedelta(seconds=2))
        assert again["spec"]["leaseTransitions"] == 1
        assert again["spec"]["acquireTime"] == taken["spec"]["acquireTime"]
        assert again["spec"]["renewTime"] > taken["spec"]["renewTime"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "DURATION", 0.6)
    monkeypatch.setattr(lease_module, "DEADLINE", 0.3)
    monkeypatch.setattr(lease_module, "RETRY", 0.05)


@pytest.fixture
def lasting(fast: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that no pause of a busy machine outlasts: what comes soon comes without its end."""
    monkeypatch.setattr(lease_module, "DURATION", 60.0)
    monkeypatch.setattr(lease_module, "DEADLINE", 40.0)


def elector(client: Client, identity: str, told: deque[Any]) -> Elector:
    return Elector(client, "op", "sys", identity, lambda leads: told.append((identity, leads)))


def holder(api: Any) -> str:
    lease = api.get(LEASES, "sys", "op")
    return str(lease["spec"]["holderIdentity"]) if lease else ""


@pytest.mark.usefixtures("fast")
class TestElecting:
    async def test_the_first_leads_and_releases(self, api: Any, client: Client, recorded: deque[Any]) -> None:
        """Leaving the context gives the lease back, and the gauge follows."""
        async with elector(client, "a", recorded).leading():
            assert holder(api) == "a"
        assert holder(api) == ""
        assert list(recorded) == [("a", True), ("a", False)]

    @pytest.mark.usefixtures("lasting")
    async def test_a_release_lets_the_next_one_lead_at_once(
        self, api: Any, client: Client, recorded: deque[Any]
    ) -> None:
        """A clean stop costs no waiting for the lease to expire."""
        async with elector(client, "a", recorded).leading():
            context = elector(client, "b", recorded).leading()
            second = asyncio.create_task(context.__aenter__())
            await asyncio.sleep(0.15)
            assert not second.done()
        renewal = await asyncio.wait_for(second, 10)
        renewal.cancel()

    async def test_a_crashed_leader_is_followed(self, api: Any, client: Client, recorded: deque[Any]) -> None:
        """A lease that nobody renews is taken after its duration."""
        api.put({"kind": "Lease", **held("dead")})
        async with asyncio.timeout(10), elector(client, "b", recorded).leading():
            assert holder(api) == "b"

    async def test_a_leader_that_cannot_renew_stops(
        self, api: Any, client: Client, recorded: deque[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the API server fails for longer than the deadline, the renewal says that leadership is lost."""
        monkeypatch.setattr(lease_module, "DURATION", 10.0)
        async with elector(client, "a", recorded).leading() as renewal:
            api.fail(500, times=1000, path="leases")
            loop = asyncio.get_running_loop()
            started = loop.time()
            with pytest.raises(LeadershipLost):
                await asyncio.wait_for(renewal, 10)
            assert loop.time() - started < lease_module.DURATION
            api.faults.clear()

    @pytest.mark.usefixtures("lasting")
    async def test_a_short_failure_is_survived(
        self, api: Any, client: Client, recorded: deque[Any], until: Callable[..., Any]
    ) -> None:
        """One failed renewal within the deadline changes nothing."""
        async with elector(client, "a", recorded).leading() as renewal:
            before = api.get(LEASES, "sys", "op")["spec"]["renewTime"]
            api.fail(500, times=2, path="leases")
            await until(lambda: api.get(LEASES, "sys", "op")["spec"]["renewTime"] != before)
            assert not renewal.done()
            assert holder(api) == "a"

    async def test_a_lease_taken_by_another_is_lost(self, api: Any, client: Client, recorded: deque[Any]) -> None:
        """Whoever took it leads; this one stops, and does not release what is not its own."""
        async with elector(client, "a", recorded).leading() as renewal:
            api.put({"kind": "Lease", **held("usurper")})
            with pytest.raises(LeadershipLost, match="usurper"):
                await asyncio.wait_for(renewal, 10)
        assert holder(api) == "usurper"

    @pytest.mark.usefixtures("lasting")
    async def test_somebody_editing_the_lease_is_no_loss(
        self, api: Any, client: Client, recorded: deque[Any], until: Callable[..., Any]
    ) -> None:
        """A conflict with the holder unchanged (or our own write whose answer was lost) is looked into, and goes on."""
        async with elector(client, "a", recorded).leading() as renewal:
            edited = api.get(LEASES, "sys", "op")
            edited["metadata"]["labels"] = {"edited": "true"}
            api.put(edited)
            before = edited["spec"]["renewTime"]
            await until(lambda: api.get(LEASES, "sys", "op")["spec"]["renewTime"] != before)
            assert not renewal.done()

    async def test_a_renewal_cut_short_does_not_keep_the_lease(
        self, api: Any, client: Client, recorded: deque[Any]
    ) -> None:
        """A renewal that was written but not yet answered when the leader stops is found, and the lease given back."""
        async with elector(client, "a", recorded).leading():
            renewed = api.get(LEASES, "sys", "op")
            renewed["spec"]["renewTime"] = "2026-01-01T00:00:02.000000Z"
            api.put(renewed)
        assert holder(api) == ""

    async def test_a_lease_taken_at_the_last_moment_is_left_alone(
        self, api: Any, client: Client, recorded: deque[Any]
    ) -> None:
        """A lease that somebody else took just before the end is not emptied."""
        async with elector(client, "a", recorded).leading():
            api.put({"kind": "Lease", **held("usurper")})
        assert holder(api) == "usurper"

    @pytest.mark.usefixtures("lasting")
    async def test_two_that_begin_together_are_not_both_leaders(
        self, api: Any, client: Client, recorded: deque[Any], until: Callable[..., Any]
    ) -> None:
        """Of several replicas that find no lease exactly one leads."""
        contexts = [elector(client, name, recorded).leading() for name in "abcde"]
        waiting = [asyncio.create_task(context.__aenter__()) for context in contexts]
        await until(lambda: any(task.done() for task in waiting))
        await asyncio.sleep(0.3)
        done = [task for task in waiting if task.done()]
        assert len(done) == 1
        for task in waiting:
            task.cancel()
        done[0].result().cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def test_a_sighting_compares_by_what_it_saw() -> None:
    """An unchanged lease keeps the time of its last change."""
    first = Sighting(("other", "t0"), 1.0)
    assert sight(first, held("other", "t0"), 9.0) is first
