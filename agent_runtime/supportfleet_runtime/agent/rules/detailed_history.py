"""Everything a customer ordered."""

from __future__ import annotations

from supportfleet_runtime.agent.orders import Order, long_date, money, newest_first, on
from supportfleet_runtime.agent.rules.case import Case, RuleAnswer

MAX_ORDERS = 20


def detailed_history(case: Case) -> RuleAnswer:
    """List the orders with their items and amounts, latest first."""
    if not case.orders:
        return RuleAnswer("I can't find any order in your account.")
    newest = newest_first(case.orders, case.today)
    lines = [_line(order, case) for order in newest[:MAX_ORDERS]]
    if len(newest) > MAX_ORDERS:
        lines.append(f"… and {len(newest) - MAX_ORDERS} older ones: see {case.settings.rules.account_url}.")
    return RuleAnswer("\n".join(["Your orders, latest first:", *lines]))


def _line(order: Order, case: Case) -> str:
    items = ", ".join(f"{item.quantity} x {item.name}" for item in order.items)
    placed = long_date(on(order.placed, case.today))
    return f"- {order.number}, {placed}, {order.status.value}: {items}; {money(order.total, order.currency)}"
