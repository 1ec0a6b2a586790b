"""What can be looked up: one order, or all of a customer's. Pure: ``refunded`` says what was paid back, by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from supportfleet_runtime.agent.orders import Order, OrderStatus, money, newest_first, on
from supportfleet_runtime.agent.toolbox import ToolStatus
from supportfleet_runtime.tools.limits import cents
from supportfleet_runtime.tools.outcome import Outcome, not_found

MAX_ORDERS: Final = 20
MAX_ITEMS: Final = 20


def find_order(orders: Sequence[Order], number: str) -> Order | None:
    """The order of this number among a customer's own."""
    return next((order for order in orders if order.number == number), None)


def order_lookup(orders: Sequence[Order], number: str, refunded: Mapping[str, int], today: date) -> Outcome:
    """One of the customer's orders."""
    order = find_order(orders, number)
    if order is None:
        return not_found(number)
    facts = _facts(order, refunded.get(number, 0), today)
    return Outcome(status=ToolStatus.DONE, message=f"Order {number} is {facts['status']}.", data={"order": facts})


def detailed_history(orders: Sequence[Order], refunded: Mapping[str, int], today: date) -> Outcome:
    """All orders of the customer, latest first; of very many, the latest."""
    newest = newest_first(orders, today)
    shown = [_facts(order, refunded.get(order.number, 0), today) for order in newest[:MAX_ORDERS]]
    message = f"There are {len(newest)} orders in your account." if newest else "There is no order in your account."
    return Outcome(status=ToolStatus.DONE, message=message, data={"orders": shown, "total": len(newest)})


def _facts(order: Order, refunded: int, today: date) -> dict[str, Any]:
    status = OrderStatus.REFUNDED if refunded >= cents(order) > 0 else order.status
    facts = {
        "number": order.number,
        "status": status.value,
        "placed": on(order.placed, today).isoformat(),
        "expected": None if order.expected is None else on(order.expected, today).isoformat(),
        "delivered": None if order.delivered is None else on(order.delivered, today).isoformat(),
        "carrier": order.carrier,
        "tracking_number": order.tracking_number,
        "items": [f"{item.quantity} x {item.name}" for item in order.items[:MAX_ITEMS]],
        "total": money(order.total, order.currency),
        "paid_back": f"{refunded / 100:.2f}" if refunded else None,
    }
    return {name: value for name, value in facts.items() if value is not None}
