"""The tools themselves: whose orders, how much, how often, and each effect once."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.toolbox import ToolStatus
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import address_changes, refunds, tickets
from supportfleet_runtime.tools.catalogue import LONG_TOOLS, TOOLS
from supportfleet_runtime.tools.limits import RefundCase, cents, decide_refund

SHOP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "tools_shop.py")))
NOT_MINE = ("A-2001", "A-3001", "A-4001", "A-9999")
ADDRESS = {"name": "Ada", "street": "1 Hill Road", "postal_code": "1010", "city": "Vienna", "country": "AT"}


@pytest.fixture
def shop(database: Database, clock: Any) -> Any:
    return SHOP.make_shop(database, clock)


async def use(shop: Any, tool: str, task: str = "task_1", **arguments: Any) -> Any:
    return await shop.tools.call(tool, arguments, SHOP.authority(task), within=10)


class TestOwnership:
    @pytest.mark.parametrize("number", NOT_MINE)
    async def test_others_orders_are_not_there(self, shop: Any, number: str) -> None:
        """Whatever is done with another customer's order, it is answered like one that doesn't exist."""
        calls = [
            use(shop, "order_lookup", order_number=number),
            use(shop, "refund", order_number=number, reason="mine"),
            use(shop, "address_change", order_number=number, address=ADDRESS),
            use(shop, "create_ticket", order_number=number, subject="s", description="d"),
        ]
        for call in calls:
            result = await call
            assert (result.status, result.message) == ("not_found", f"I can't find an order {number} in your account.")
            assert not result.data
        assert await shop.paid() == await shop.count(tickets) == await shop.count(address_changes) == 0

    async def test_the_history_is_ones_own(self, shop: Any) -> None:
        """All of the customer's orders, latest first, and nobody else's; who has none is told so."""
        result = await use(shop, "detailed_history")
        assert [order["number"] for order in result.data["orders"]] == ["A-1002", "A-1001", "A-1003", "A-1004"]
        nobody = await shop.tools.call("detailed_history", {}, SHOP.authority(customer="nobody"), within=5)
        assert nobody.data["total"] == 0

    async def test_arguments_can_name_no_customer(self, shop: Any) -> None:
        """A model that adds a customer to its arguments is refused, field by field."""
        result = await use(shop, "order_lookup", order_number="A-2001", customer_id="cust-1002")
        assert result.status == ToolStatus.INVALID
        assert "customer_id" in result.message
        for tool in TOOLS.values():
            assert "customer" not in str(tool.schema["properties"].keys())


class TestRefunds:
    async def test_in_parts_up_to_the_whole(self, shop: Any) -> None:
        """An order is paid back in parts, never more than was paid for it, and then it is a refunded one."""
        assert (await use(shop, "refund", "t1", order_number="A-1003", amount=50, reason="r")).status == "done"
        more = await use(shop, "refund", "t2", order_number="A-1003", amount=20.86, reason="r")
        assert (more.status, more.message) == ("refused", "At most EUR 20.85 can be paid back for order A-1003.")
        rest = await use(shop, "refund", "t3", order_number="A-1003", reason="r")
        assert (rest.status, rest.data["amount"]) == ("done", "20.85")
        assert await shop.paid() == 7085
        assert (await use(shop, "refund", "t4", order_number="A-1003", reason="r")).status == "refused"
        shown = (await use(shop, "order_lookup", order_number="A-1003")).data["order"]
        assert (shown["status"], shown["paid_back"]) == ("refunded", "70.85")

    async def test_others_states(self, shop: Any) -> None:
        """What is not delivered, or too long ago, is not paid back."""
        for number in ("A-1001", "A-1002", "A-1004"):
            assert (await use(shop, "refund", f"t{number}", order_number=number, reason="r")).status == "refused"
        assert await shop.paid() == 0

    async def test_what_is_dear_needs_a_person(self, database: Database, clock: Any) -> None:
        """Above the approval limit it is filed and a person called; above the maximum only a person is called."""
        limits = {"tools": {"refund": {"approvalAbove": 20, "maxAmount": 40}}}
        shop = SHOP.make_shop(database, clock, settings=AgentSettings.model_validate(limits))
        filed = await use(shop, "refund", "t1", order_number="A-1003", amount=20.01, reason="r")
        assert (filed.status, filed.needs_person) == ("needs_approval", True)
        refused = await use(shop, "refund", "t2", order_number="A-1003", amount=41, reason="r")
        assert (refused.status, refused.needs_person) == ("refused", True)
        assert (await use(shop, "refund", "t3", order_number="A-1003", amount=20, reason="r")).status == "done"
        rows = await database.read(lambda c: c.execute(refunds.select().order_by(refunds.c.amount)).all())
        assert [(row.amount, row.state) for row in rows] == [(2000, "paid"), (2001, "awaiting_approval")]

    async def test_the_days_limit_holds_however_many_come_at_once(self, database: Database, clock: Any) -> None:
        """Refunds of one customer wait for each other; the day after there is room again."""
        book = SHOP.open_book(8)
        book["tools"]["refund"]["perCustomerPerDay"] = 120
        shop = SHOP.make_shop(database, clock, settings=AgentSettings.model_validate(book))

        async def refund_all(numbers: range) -> list[str]:
            calls = [use(shop, "refund", f"t{n}", order_number=f"A-{n}", reason="r") for n in numbers]
            return sorted(result.status for result in await asyncio.gather(*calls))

        assert await refund_all(range(10_000, 10_004)) == ["done", "done", "needs_approval", "needs_approval"]
        clock.advance(24 * 3600 + 1)
        assert await refund_all(range(10_004, 10_006)) == ["done", "done"]

    @given(
        asked=st.none() | st.integers(1, 100_000),
        already=st.integers(0, 10_000),
        today=st.integers(0, 50_000),
        limits=st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300)),
    )
    def test_no_amount_passes_a_limit(
        self, asked: int | None, already: int, today: int, limits: tuple[int, int, int]
    ) -> None:
        """Whatever is asked, what is paid fits the order, the maximum, the approval limit and the day."""
        names = ("maxAmount", "approvalAbove", "perCustomerPerDay")
        settings = AgentSettings.model_validate({"tools": {"refund": dict(zip(names, limits, strict=True))}})
        order = settings.order_book.of_customer("cust-1001")[2]
        day = SHOP.datetime(2026, 11, 21).date()
        amount, outcome = decide_refund(RefundCase(order.number, order, asked, already, today, day), settings)
        if outcome.status == ToolStatus.DONE:
            most, approval, per_day = (limit * 100 for limit in limits)
            assert 0 < amount <= min(most, approval, per_day - today, cents(order) - already)


class TestOtherChanges:
    async def test_an_address_changes_until_it_is_sent(self, shop: Any, database: Database) -> None:
        """Only an order that is still being packed; the address is kept for the warehouse."""
        assert (await use(shop, "address_change", order_number="A-1002", address=ADDRESS)).status == "done"
        assert (await use(shop, "address_change", order_number="A-1001", address=ADDRESS)).status == "refused"
        (row,) = await database.read(lambda c: c.execute(address_changes.select()).all())
        assert (row.order_number, row.customer_id) == ("A-1002", "cust-1001")
        assert "Vienna" in row.address

    async def test_how_often(self, database: Database, clock: Any) -> None:
        """Tickets, addresses and passwords have a limit for each day."""
        few = {"perCustomerPerDay": 1}
        limits = {"tools": {"createTicket": few, "addressChange": few, "passwordReset": few}}
        shop = SHOP.make_shop(database, clock, settings=AgentSettings.model_validate(limits))
        for tool, arguments in (
            ("create_ticket", {"subject": "s", "description": "d"}),
            ("address_change", {"order_number": "A-1002", "address": ADDRESS}),
            ("password_reset", {}),
        ):
            assert [(await use(shop, tool, task, **arguments)).status for task in "ab"] == ["done", "refused"]

    async def test_one_ticket_for_a_message(self, shop: Any) -> None:
        """A second ticket in the same message is the first one again, however it is worded."""
        first = await use(shop, "create_ticket", subject="Zip", description="It broke.")
        second = await use(shop, "create_ticket", subject="The zip", description="It is broken!")
        assert first == second
        assert await shop.count(tickets) == 1
        assert (await use(shop, "create_ticket", "task_2", subject="Zip", description="Again.")).data != first.data


class TestCatalogue:
    def test_amounts_are_compared_as_amounts(self) -> None:
        """10, 10.0 and what differs by a float's error are the same refund; 10.01 is another, and so is none."""
        tool = TOOLS["refund"]
        hashes = [
            tool.arguments_hash(tool.arguments.model_validate({**SHOP.REFUND, "amount": amount, "reason": str(number)}))
            for number, amount in enumerate((10, 10.0, 10.000000000000002, 10.01, None))
        ]
        assert len(set(hashes[:3])) == 1
        assert len(set(hashes)) == 3

    def test_what_is_long(self) -> None:
        """What may take longer than a customer waits is marked, so that it can become a task of its own."""
        assert set(LONG_TOOLS) == {"detailed_history"}

    @pytest.mark.parametrize(
        ("tool", "arguments"),
        [
            ("order_lookup", {}),
            ("order_lookup", {"order_number": "1' OR '1'='1"}),
            ("refund", {**SHOP.REFUND, "amount": 0}),
            ("refund", {**SHOP.REFUND, "amount": -5}),
            ("refund", {**SHOP.REFUND, "amount": float("nan")}),
            ("refund", {**SHOP.REFUND, "amount": float("inf")}),
            ("refund", {**SHOP.REFUND, "amount": 10**400}),
            ("refund", {**SHOP.REFUND, "amount": True}),
            ("refund", {**SHOP.REFUND, "amount": "10"}),
            ("refund", {**SHOP.REFUND, "amount": 1.001}),
            ("refund", {**SHOP.REFUND, "amount": [1]}),
            ("refund", {**SHOP.REFUND, "reason": " "}),
            ("create_ticket", {"subject": "\x00", "description": "d"}),
            ("create_ticket", {"subject": "\ud800", "description": "d"}),
            ("address_change", {"order_number": "A-1002", "address": "anywhere"}),
            ("drop_tables", {}),
        ],
    )
    async def test_wrong_arguments_do_nothing(self, shop: Any, tool: str, arguments: dict[str, Any]) -> None:
        """Arguments that are not as documented are told with their name, and nothing happens."""
        assert (await use(shop, tool, **arguments)).status == ToolStatus.INVALID
        assert await shop.count() == 0
        assert await shop.states() == {}

    async def test_what_is_switched_off_is_not_there(self, database: Database, clock: Any) -> None:
        """A tool that is not enabled is neither offered nor carried out."""
        only = AgentSettings.model_validate({"tools": {"enabled": ["order_lookup"]}})
        shop = SHOP.make_shop(database, clock, settings=only)
        assert [one.name for one in shop.tools.specs()] == ["order_lookup"]
        assert (await shop.refund()).status == ToolStatus.INVALID
        assert await shop.paid() == 0
