"""Where an order is."""

from __future__ import annotations

from supportfleet_runtime.agent.orders import Order, OrderStatus, long_date, on
from supportfleet_runtime.agent.rules.about_order import about_order
from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def order_status(case: Case) -> RuleAnswer | None:
    """Say where the order is and when it comes."""
    return about_order(case, "order_status", _describe)


def _describe(order: Order, case: Case) -> RuleAnswer:
    subject = f"Order {order.number} ({order.title})"
    match order.status:
        case OrderStatus.PROCESSING:
            return RuleAnswer(f"{subject} is being packed.{_arrival(order, case)}")
        case OrderStatus.SHIPPED:
            return RuleAnswer(f"{subject} is on its way{_carrier(order)}.{_arrival(order, case)}")
        case OrderStatus.DELIVERED:
            delivered = long_date(on(order.delivered if order.delivered is not None else order.placed, case.today))
            return RuleAnswer(f"{subject} was delivered on {delivered}{_carrier(order)}.")
        case OrderStatus.CANCELLED:
            return RuleAnswer(f"{subject} was cancelled and will not be sent.")
        case OrderStatus.REFUNDED:
            return RuleAnswer(f"{subject} was refunded.")


def _arrival(order: Order, case: Case) -> str:
    if order.expected is None:
        return ""
    day = on(order.expected, case.today)
    if day < case.today:
        return (
            f" It should have arrived on {long_date(day)}: I'm sorry that it is late."
            " Write 'human' and a colleague will ask the carrier."
        )
    return f" It should arrive on {long_date(day)}."


def _carrier(order: Order) -> str:
    if order.carrier is None:
        return ""
    tracking = f" (tracking number {order.tracking_number})" if order.tracking_number else ""
    return f" with {order.carrier}{tracking}"
