"""What rules about an order have in common: finding out which one is meant.

One mentioned: that one. None mentioned: the only one there is, else the customer is asked, twice at most.
An order of somebody else's is answered exactly like one that doesn't exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supportfleet_runtime.agent.orders import Order, newest_first
from supportfleet_runtime.agent.rules.case import Case, Pending, RuleAnswer

MAX_ASKS = 2
SUGGESTIONS = 3


def about_order(case: Case, intent: str, describe: Callable[[Order, Case], RuleAnswer]) -> RuleAnswer | None:
    """Apply ``describe`` to each order that is meant, or ask which."""
    if case.mentions.orders:
        answers = [describe(order, case) for order in case.mentions.orders]
        texts = [answer.text for answer in answers] + [_not_found(number) for number in case.mentions.unknown]
        return RuleAnswer("\n".join(texts), escalate=any(answer.escalate for answer in answers))
    if not case.orders:
        return RuleAnswer(_no_orders(case.mentions.unknown))
    if len(case.orders) == 1 and not case.mentions.unknown:
        return describe(case.orders[0], case)
    if case.asked >= MAX_ASKS:
        return None
    parts = [*(_not_found(number) for number in case.mentions.unknown), _which(case)]
    return RuleAnswer(" ".join(parts), pending=Pending(intent, case.asked + 1))


def _not_found(number: str) -> str:
    return f"I can't find an order {number} in your account."


def _no_orders(numbers: Sequence[str]) -> str:
    said = " ".join(_not_found(number) for number in numbers) or "I can't find any order in your account."
    return f"{said} Did you order with another e-mail address? Write 'human' and a colleague will look into it."


def _which(case: Case) -> str:
    newest = newest_first(case.orders, case.today)[:SUGGESTIONS]
    listed = ", ".join(f"{order.number} ({order.title})" for order in newest)
    return f"Which order do you mean? Please send its number. Your latest: {listed}."
