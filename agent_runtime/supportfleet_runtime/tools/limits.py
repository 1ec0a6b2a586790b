"""Whether a refund is paid, passed to a person, or refused. Pure: a checklist over what is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from supportfleet_runtime.agent.orders import Order, OrderStatus, long_date, money, on
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.toolbox import ToolStatus
from supportfleet_runtime.tools.outcome import Outcome, not_found, refused

NOT_DELIVERED: Final = {
    OrderStatus.PROCESSING: "Order {0} is not sent yet: cancel it at {1} and pay nothing.",
    OrderStatus.SHIPPED: "Order {0} is still on its way: it can be refunded once it has arrived.",
    OrderStatus.CANCELLED: "Order {0} was cancelled, so there is nothing to refund.",
}


@dataclass(frozen=True)
class RefundCase:
    """A refund that is asked for. Amounts are in hundredths; those filed for approval count as paid."""

    order_number: str
    order: Order | None
    """``None``: no such order of this customer."""
    asked: int | None
    already: int
    """Paid back for this order before."""
    today_paid: int
    """Paid back to this customer in the last day."""
    today: date


def decide_refund(case: RefundCase, settings: AgentSettings) -> tuple[int, Outcome]:
    """How much would be paid, and what is decided: done, needs approval, or why neither."""
    order = case.order
    if order is None:
        return 0, not_found(case.order_number)
    total = cents(order)
    left = total - case.already
    if problem := _not_refundable(order, left, case, settings):
        return 0, refused(problem)
    amount = left if case.asked is None else case.asked
    if amount > left:
        return 0, refused(f"At most {_money(left, order)} can be paid back for order {order.number}.")
    limits, said = settings.tools.refund, _money(amount, order)
    if amount > limits.max_amount * 100:
        return 0, refused(f"A refund of {said} for order {order.number} is a colleague's to decide.", needs_person=True)
    data = {"order_number": order.number, "amount": f"{amount / 100:.2f}", "currency": order.currency}
    if amount > limits.approval_above * 100 or case.today_paid + amount > limits.per_customer_per_day * 100:
        message = f"A refund of {said} for order {order.number} needs a colleague's approval, and was passed on."
        return amount, Outcome(status=ToolStatus.NEEDS_APPROVAL, message=message, data=data, needs_person=True)
    message = f"{said} for order {order.number} was refunded to the way you paid."
    return amount, Outcome(status=ToolStatus.DONE, message=message, data=data)


def cents(order: Order) -> int:
    """What was paid for an order, in hundredths."""
    return int(order.total * 100)


def _not_refundable(order: Order, left: int, case: RefundCase, settings: AgentSettings) -> str | None:
    """Why nothing of this order can be paid back now, whatever the amount."""
    if order.status is OrderStatus.REFUNDED or (left <= 0 and order.status is OrderStatus.DELIVERED):
        return f"Order {order.number} was refunded already."
    if order.status is not OrderStatus.DELIVERED:
        return NOT_DELIVERED[order.status].format(order.number, settings.rules.account_url)
    delivered = on(order.delivered if order.delivered is not None else order.placed, case.today)
    last_day = delivered + timedelta(days=settings.rules.refund_window_days)
    return f"Order {order.number} could be refunded until {long_date(last_day)}." if case.today > last_day else None


def _money(hundredths: int, order: Order) -> str:
    return money(Decimal(hundredths) / 100, order.currency)
