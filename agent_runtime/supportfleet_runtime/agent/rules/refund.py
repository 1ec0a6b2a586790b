"""Refunds: within the window the customer starts a return; what is dear or doubtful goes to a person."""

from __future__ import annotations

from datetime import timedelta

from supportfleet_runtime.agent.orders import Order, OrderStatus, long_date, money, on
from supportfleet_runtime.agent.rules.about_order import about_order
from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def refund(case: Case) -> RuleAnswer | None:
    """Say whether the order can be refunded, and how."""
    return about_order(case, "refund", _describe)


def _describe(order: Order, case: Case) -> RuleAnswer:
    account = case.settings.rules.account_url
    match order.status:
        case OrderStatus.PROCESSING:
            return RuleAnswer(f"Order {order.number} is not sent yet: you can cancel it at {account} and pay nothing.")
        case OrderStatus.SHIPPED:
            return RuleAnswer(
                f"Order {order.number} is still on its way. Once it has arrived you can return it at {account}"
                f" within {case.settings.rules.refund_window_days} days."
            )
        case OrderStatus.DELIVERED:
            return _delivered(order, case)
        case OrderStatus.CANCELLED:
            return RuleAnswer(f"Order {order.number} was cancelled, so there is nothing left to refund.")
        case OrderStatus.REFUNDED:
            return RuleAnswer(
                f"Order {order.number} was refunded already: {money(order.total, order.currency)} went back to the way"
                " you paid."
            )


def _delivered(order: Order, case: Case) -> RuleAnswer:
    rules = case.settings.rules
    delivered = on(order.delivered if order.delivered is not None else order.placed, case.today)
    last_day = delivered + timedelta(days=rules.refund_window_days)
    amount = money(order.total, order.currency)
    if case.today > last_day:
        return RuleAnswer(
            f"Order {order.number} was delivered on {long_date(delivered)}, and returns were possible until"
            f" {long_date(last_day)}. If it is faulty, write 'human' and a colleague will help."
        )
    if order.total > rules.refund_limit:
        return RuleAnswer(
            f"A refund of {amount} for order {order.number} needs a colleague's approval."
            f" {case.settings.escalation_reply}",
            escalate=True,
        )
    return RuleAnswer(
        f"Order {order.number} can be returned until {long_date(last_day)}: start the return at"
        f" {rules.account_url}. Once it has arrived here, {amount} goes back to the way you paid."
    )
