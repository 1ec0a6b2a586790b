"""Changing where an order goes: possible until it has left the warehouse."""

from __future__ import annotations

from supportfleet_runtime.agent.orders import Order, OrderStatus
from supportfleet_runtime.agent.rules.about_order import about_order
from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def address_change(case: Case) -> RuleAnswer | None:
    """Say how the address is changed: of the account, or of an order that is not sent yet."""
    if not case.mentions and not any(order.status is OrderStatus.PROCESSING for order in case.orders):
        return RuleAnswer(
            f"You can change the address for your next orders at {case.settings.rules.account_url}."
            " If it is about an order that is on its way, please send me its number."
        )
    return about_order(case, "address_change", _describe)


def _describe(order: Order, case: Case) -> RuleAnswer:
    account = case.settings.rules.account_url
    match order.status:
        case OrderStatus.PROCESSING:
            return RuleAnswer(
                f"Order {order.number} ({order.title}) is still being packed:"
                f" you can change its delivery address at {account} until it ships."
            )
        case OrderStatus.SHIPPED:
            carrier = order.carrier or "the carrier"
            return RuleAnswer(
                f"Order {order.number} is already on its way, so we can't change its address any more."
                f" {carrier} may still redirect it"
                + (f": use the tracking number {order.tracking_number}." if order.tracking_number else ".")
            )
        case _:
            return RuleAnswer(
                f"Order {order.number} is {order.status.value}, so its address can't be changed."
                f" The address for your next orders is set at {account}."
            )
