"""The effects themselves: each in the transaction it is given, within the limits, for one customer's own orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Table, func, insert, select

from supportfleet_runtime.agent.orders import Order, OrderStatus
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.toolbox import ToolStatus
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.tool_tables import (
    AWAITING_APPROVAL,
    PAID,
    address_changes,
    refunds,
    tickets,
    tool_effects,
)
from supportfleet_runtime.tools.arguments import AddressChange, CreateTicket, Refund
from supportfleet_runtime.tools.backend import ToolRequest
from supportfleet_runtime.tools.limits import RefundCase, decide_refund
from supportfleet_runtime.tools.outcome import Outcome, not_found, refused
from supportfleet_runtime.tools.reading import find_order

DAY: Final = timedelta(days=1)
TOO_OFTEN: Final = "That was asked for too often today. A colleague can help: write 'human'."


@dataclass(frozen=True)
class Case:
    """A call, and what it may rely on."""

    request: ToolRequest
    settings: AgentSettings
    scope: str
    now: datetime

    def order(self, number: str) -> Order | None:
        """The order, if it is this customer's own."""
        return find_order(self.settings.order_book.of_customer(self.request.customer_id), number)


Change = Callable[[Connection, Case], Outcome]


def refund(connection: Connection, case: Case) -> Outcome:
    """Pay back, or file what a person must approve."""
    asked = case.request.arguments
    assert isinstance(asked, Refund)  # noqa: S101 - the catalogue's
    mine = (refunds.c.scope == case.scope, refunds.c.customer_id == case.request.customer_id)
    sums = select(func.coalesce(func.sum(refunds.c.amount), 0))
    # Whoever's it was: an erased customer's refunds stay those of the order.
    of_order = (refunds.c.scope == case.scope, refunds.c.order_number == asked.order_number)
    already = connection.execute(sums.where(*of_order)).scalar_one()
    lately = (refunds.c.state == PAID, refunds.c.created_at > case.now - DAY)
    today_paid = connection.execute(sums.where(*mine, *lately)).scalar_one()
    order = case.order(asked.order_number)
    facts = RefundCase(asked.order_number, order, asked.cents, int(already), int(today_paid), case.now.date())
    amount, outcome = decide_refund(facts, case.settings)
    if order is None or outcome.status not in {ToolStatus.DONE, ToolStatus.NEEDS_APPROVAL}:
        return outcome
    values = {
        **_owned("refund", case),
        "order_number": order.number,
        "amount": amount,
        "currency": order.currency,
        "state": PAID if outcome.status is ToolStatus.DONE else AWAITING_APPROVAL,
        "reason": asked.reason,
    }
    connection.execute(insert(refunds), [values])
    return outcome.model_copy(update={"data": {**outcome.data, "refund_id": values["id"]}})


def create_ticket(connection: Connection, case: Case) -> Outcome:
    """Open a ticket."""
    asked = case.request.arguments
    assert isinstance(asked, CreateTicket)  # noqa: S101 - the catalogue's
    if asked.order_number is not None and case.order(asked.order_number) is None:
        return not_found(asked.order_number)
    if _lately(connection, case, tickets) >= case.settings.tools.create_ticket.per_customer_per_day:
        return refused(TOO_OFTEN)
    values = {
        **_owned("ticket", case),
        "conversation_id": case.request.conversation_id,
        "order_number": asked.order_number,
        "subject": asked.subject,
        "description": asked.description,
        "state": "open",
    }
    connection.execute(insert(tickets), [values])
    data = {"ticket_id": values["id"]}
    return Outcome(status=ToolStatus.DONE, message=f"Ticket {values['id']} was opened for our team.", data=data)


def address_change(connection: Connection, case: Case) -> Outcome:
    """Have an order sent elsewhere, until it has left."""
    asked = case.request.arguments
    assert isinstance(asked, AddressChange)  # noqa: S101 - the catalogue's
    order = case.order(asked.order_number)
    if order is None:
        return not_found(asked.order_number)
    if order.status is not OrderStatus.PROCESSING:
        return refused(f"Order {order.number} is {order.status.value}, so its address can't be changed any more.")
    if _lately(connection, case, address_changes) >= case.settings.tools.address_change.per_customer_per_day:
        return refused(TOO_OFTEN)
    values = {
        **_owned("addr", case),
        "order_number": order.number,
        "address": asked.address.model_dump_json(),
    }
    connection.execute(insert(address_changes), [values])
    message = f"Order {order.number} will go to the new address."
    return Outcome(status=ToolStatus.DONE, message=message, data={"order_number": order.number})


def password_reset(connection: Connection, case: Case) -> Outcome:
    """Tell where a new password is set. Noted by its effect alone: no agent sees or sets a password."""
    since = (tool_effects.c.tool == case.request.tool.name,)
    if _lately(connection, case, tool_effects, *since) >= case.settings.tools.password_reset.per_customer_per_day:
        return refused(TOO_OFTEN)
    url = case.settings.rules.password_reset_url
    message = f"You can set a new password at {url}: the page sends a link to the e-mail address of your account."
    return Outcome(status=ToolStatus.DONE, message=message, data={"url": url})


def _owned(prefix: str, case: Case) -> dict[str, object]:
    """The columns that every row has."""
    return {
        "id": new_id(prefix, case.now),
        "scope": case.scope,
        "customer_id": case.request.customer_id,
        "created_at": case.now,
    }


def _lately(connection: Connection, case: Case, table: Table, *conditions: object) -> int:
    """How many rows of this customer the last day has."""
    statement = select(func.count()).where(
        table.c.scope == case.scope,
        table.c.customer_id == case.request.customer_id,
        table.c.created_at > case.now - DAY,
        *conditions,  # type: ignore[arg-type]  # columns' conditions
    )
    return int(connection.execute(statement).scalar_one())
