"""The ledger of effects: whatever breaks, and wherever, money moves once or a person is called."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from supportfleet_runtime.agent.breaker import CircuitBreaker, State
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.errors import ProviderError, StorageUnavailableError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import audit_log
from supportfleet_runtime.storage.tool_tables import refunds
from supportfleet_runtime.tools.outcome import KeyReusedError, OutcomeUnknownError, ToolsUnavailableError

SHOP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "tools_shop.py")))
UNKNOWN, AWAY = OutcomeUnknownError("the connection broke"), ToolsUnavailableError("no connection")


class Backend:
    """The desk, with errors raised before it works, after it did, and when it is asked what came of a key."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self.available = True
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.asked: list[Exception | None] = []
        self.performed = 0

    async def perform(self, request: Any, *, within: float) -> Any:
        self.performed += 1
        _raise(self.before)
        outcome = await self.desk.perform(request, within=within)
        _raise(self.after)
        return outcome

    async def effect(self, key: str, *, within: float) -> Any:
        _raise(self.asked)
        return await self.desk.effect(key, within=within)

    async def close(self) -> None:
        pass


def _raise(errors: list[Exception | None]) -> None:
    error = errors.pop(0) if errors else None
    if error:
        raise error


@pytest.fixture
def shop(database: Database, clock: Any) -> Any:
    desk = SHOP.make_shop(database, clock).backend
    return SHOP.make_shop(database, clock, backend=Backend(desk))


class TestTheLedger:
    async def test_an_effect_is_written_down_and_replayed(self, shop: Any) -> None:
        """The same call in the same message has the effect of the first, whatever the reason is worded like."""
        first = await shop.refund()
        assert (first.status, await shop.states()) == ("done", {"task_1": "done"})
        assert await shop.refund(reason="worded otherwise", amount=10.0) == first
        assert (shop.backend.performed, await shop.paid()) == (1, 1000)
        assert (await shop.refund("task_2")).status == "done"
        assert await shop.paid() == 2000

    async def test_the_same_key_with_another_amount_is_refused(self, shop: Any) -> None:
        """An effect that was asked for is not changed by asking again with another amount, here or at the desk."""
        await shop.refund()
        for amount in (10.01, 9.99, None):
            assert (await shop.refund(amount=amount)).status == "refused"
        assert (shop.backend.performed, await shop.paid()) == (1, 1000)
        tool = SHOP.Tools.__init__.__globals__["TOOLS"]["refund"]
        arguments = tool.arguments.model_validate({**SHOP.REFUND, "amount": 11})
        key = tool.key(SHOP.SCOPE, "task_1", arguments)
        request = SHOP.Tools.__init__.__globals__["ToolRequest"](tool, arguments, "cust-1001", None, key)
        with pytest.raises(KeyReusedError):
            await shop.backend.desk.perform(request, within=1)

    async def test_what_is_refused_stays_refused(self, shop: Any) -> None:
        """A refusal is an outcome like any other: it is written down and replayed."""
        first = await shop.refund(order_number="A-1004")
        assert await shop.states() == {"task_1": "refused"}
        assert await shop.refund(order_number="A-1004") == first
        assert shop.backend.performed == 1

    async def test_each_effect_is_in_the_audit_log_once(self, shop: Any) -> None:
        """What came of a call is on record with its amount, once however often it is asked for; never why."""
        shop.backend.before, shop.backend.asked = [None, None, UNKNOWN], [UNKNOWN]
        for task, order in (("task_1", "A-1003"), ("task_2", "A-1004"), ("task_3", "A-1003")):
            for _ in range(2):
                await shop.refund(task, order_number=order)
        rows = await shop.database.read(lambda c: c.execute(select(audit_log)).all())
        assert [(row.event, row.task_id, row.customer_id, row.facts["state"]) for row in rows] == [
            ("effect_settled", "task_1", "cust-1001", "done"),
            ("effect_settled", "task_2", "cust-1001", "refused"),
            ("effect_settled", "task_3", "cust-1001", "ambiguous"),
        ]
        assert (rows[0].facts["tool"], rows[0].facts["amount"], rows[0].facts["currency"]) == ("refund", "10.00", "EUR")
        assert SHOP.REFUND["reason"] not in str([row.facts for row in rows])

    async def test_an_answer_that_is_lost_is_looked_up(self, shop: Any) -> None:
        """Committed, then the connection broke: one look tells that it was done."""
        shop.backend.after = [UNKNOWN]
        assert (await shop.refund()).status == "done"
        assert await shop.states() == {"task_1": "done"}
        assert (shop.backend.performed, await shop.paid()) == (1, 1000)

    @pytest.mark.parametrize("asked", [[UNKNOWN], [None]])
    async def test_what_nobody_can_tell_is_a_persons(self, shop: Any, asked: list[Any]) -> None:
        """Where the look tells nothing, or that nothing is there yet, it is ambiguous; it is not tried again."""
        shop.backend.before, shop.backend.asked = [UNKNOWN], asked
        result = await shop.refund()
        assert (result.status, result.needs_person) == ("ambiguous", True)
        assert await shop.states() == {"task_1": "ambiguous"}
        assert await shop.refund() == result
        assert (shop.backend.performed, await shop.paid()) == (1, 0)

    async def test_tools_that_are_away_had_no_effect(self, shop: Any) -> None:
        """A call that was never made leaves nothing behind, and the next message may make it."""
        shop.backend.before = [AWAY]
        with pytest.raises(ProviderError, match="tools_unavailable"):
            await shop.refund()
        assert await shop.states() == {}
        assert (await shop.refund()).status == "done"

    async def test_a_copy_changes_nothing(self, shop: Any) -> None:
        """For the copy of a message things are looked up, and nothing is done."""
        copy = SHOP.authority(may_change=False)
        assert (await shop.tools.call("refund", SHOP.REFUND, copy, within=5)).status == "not_carried_out"
        looked = await shop.tools.call("order_lookup", {"order_number": "A-1003"}, copy, within=5)
        assert (looked.status, await shop.states(), await shop.paid()) == ("done", {}, 0)


class TestTheNextAttempt:
    """The first one ended in the middle, as a killed process does: its ledger's row is pending."""

    async def interrupted(self, shop: Any, *, done: bool) -> None:
        """An attempt that ends before or after the effect."""
        errors = shop.backend.after if done else shop.backend.before
        errors.append(StorageUnavailableError("killed here"))
        with pytest.raises(StorageUnavailableError):
            await shop.refund()
        assert await shop.states() == {"task_1": "pending"}

    @pytest.mark.parametrize("done", [True, False])
    async def test_the_same_call_has_one_effect(self, shop: Any, *, done: bool) -> None:
        """Ended after the effect, it is found; before it, it is had now."""
        await self.interrupted(shop, done=done)
        assert (await shop.refund(reason="asked again")).status == "done"
        assert await shop.states() == {"task_1": "done"}
        assert (await shop.paid(), await shop.count(refunds)) == (1000, 1)

    async def test_where_nobody_can_tell(self, shop: Any) -> None:
        """Where the service can't be asked, nothing is tried again: a person is called."""
        await self.interrupted(shop, done=True)
        shop.backend.asked = [UNKNOWN]
        result = await shop.refund()
        assert (result.status, result.needs_person, shop.backend.performed) == ("ambiguous", True, 1)

    async def test_the_model_is_told_without_asking(self, shop: Any) -> None:
        """An attempt learns what the one before it did, also where the model asks for something else now."""
        await self.interrupted(shop, done=True)
        (told,) = await shop.tools.earlier(SHOP.authority(), within=5)
        assert (told.tool, told.status, await shop.states()) == ("refund", "done", {"task_1": "done"})
        assert await shop.tools.earlier(SHOP.authority("task_2"), within=5) == []

    async def test_what_never_reached_the_tools_is_not_told(self, shop: Any) -> None:
        """An effect that was only written down has not happened."""
        await self.interrupted(shop, done=False)
        assert await shop.tools.earlier(SHOP.authority(), within=5) == []

    async def test_two_workers_at_once(self, shop: Any) -> None:
        """A message whose lease ran out is worked twice at the same time: one effect."""
        got = await asyncio.gather(*(shop.refund() for _ in range(8)))
        assert {result.status for result in got} == {"done"}
        assert (await shop.paid(), await shop.count(refunds)) == (1000, 1)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["fine", "unknown-before", "unknown-after", "away", "killed-before", "killed-after"]),
                st.sampled_from([None, UNKNOWN]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_any_history_of_attempts(self, shop: Any, attempts: list[tuple[str, Exception | None]]) -> None:
        """However many attempts end however: at most one effect; done is only said of what was."""
        task = f"task_{id(attempts)}_{asyncio.get_running_loop().time()}"
        before = await shop.paid()
        said = []
        for how, lookup in attempts:
            error = {"unknown": UNKNOWN, "away": AWAY, "killed": StorageUnavailableError("killed")}.get(
                how.split("-")[0]
            )
            shop.backend.before = [error] if how.endswith("before") or how == "away" else []
            shop.backend.after = [error] if how.endswith("after") else []
            shop.backend.asked = [lookup]
            try:
                said.append((await shop.refund(task, amount=0.01)).status)
            except (ProviderError, StorageUnavailableError):
                said.append("nothing")
        effects = await shop.paid() - before
        assert effects in {0, 1}
        if "done" in said:
            assert effects == 1
        state = (await shop.states()).get(task)
        assert {"done": effects == 1, None: effects == 0}.get(state, state in {"pending", "ambiguous", "refused"})


class TestOverHttp:
    async def test_a_connection_that_drops_after_the_commit(
        self, database: Database, database_url: str, clock: Any, tmp_path: Path
    ) -> None:
        """300 refunds, connections that break before and after the commit, at look-ups too: one effect or a person."""
        runs = 300
        book = AgentSettings.model_validate(SHOP.open_book(runs))
        (tmp_path / "agent_config.json").write_text(AgentSettings.model_dump_json(book, by_alias=True))
        faults = SHOP.Faults.random(seed=7, share=0.5)
        async with SHOP.tool_service(database_url, clock, str(tmp_path), faults) as url:
            shop = SHOP.make_shop(database, clock, url=url, settings=book)
            got: list[Any] = []
            for start in range(0, runs, 20):
                calls = [
                    shop.refund(f"task_{n}", order_number=f"A-{10_000 + n}", amount=10)
                    for n in range(start, start + 20)
                ]
                got += await asyncio.gather(*calls, return_exceptions=True)
            await shop.tools.close()
        # On a machine that stands still for seconds a connection may not come about: then nothing was asked for.
        not_asked = {n for n, result in enumerate(got) if isinstance(result, ProviderError)}
        results = {n: result for n, result in enumerate(got) if n not in not_asked}
        statuses = [result.status for result in results.values()]
        assert set(statuses) == {"done", "ambiguous"}
        assert all(result.needs_person == (result.status == "ambiguous") for result in results.values())
        paid = await database.read(lambda c: c.execute(refunds.select()).all())
        numbers = [row.order_number for row in paid]
        assert len(numbers) == len(set(numbers)), "an order was paid back twice"
        assert {f"A-{10_000 + n}" for n, result in results.items() if result.status == "done"} <= set(numbers)
        assert not {f"A-{10_000 + n}" for n in not_asked} & set(numbers)
        assert statuses.count("done") > runs / 2
        posts = [request for request in faults.seen if request.startswith("POST")]
        assert len(posts) <= len(results), "a call was made twice"
        states = await shop.states()
        assert {task: states[task] for task in states if int(task[5:]) in results} == {
            f"task_{n}": result.status for n, result in results.items()
        }

    async def test_a_service_that_is_silent(
        self, database: Database, database_url: str, clock: Any, tmp_path: Path
    ) -> None:
        """A call that isn't answered in time is looked up within the time that is left."""
        faults = SHOP.Faults(lambda request: "hang-after" if request.method == "POST" else None)
        async with SHOP.tool_service(database_url, clock, str(tmp_path), faults) as url:
            shop = SHOP.make_shop(database, clock, url=url, timeout=1)
            assert (await shop.refund()).status == "done"
            await shop.tools.close()
        assert await shop.paid() == 1000

    async def test_a_service_that_is_down_is_left_alone(self, database: Database, clock: Any) -> None:
        """No connection: nothing happened, and after five of them nobody is asked."""
        breaker = CircuitBreaker(lambda: 0.0)
        shop = SHOP.make_shop(database, clock, url="http://127.0.0.1:9", breaker=breaker)
        for _ in range(6):
            with pytest.raises(ProviderError, match="tools_unavailable"):
                await shop.refund()
        assert (breaker.state, shop.tools.available) == (State.OPEN, False)
        assert await shop.states() == {}
        await shop.tools.close()
