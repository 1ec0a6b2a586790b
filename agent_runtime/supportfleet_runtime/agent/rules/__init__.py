"""The rules: intents that need no language model.

One policy, one module; each is a pure function of a ``Case``. They state facts of the order book and point to where
the customer can act; none of them claims to have carried out what it can't.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from supportfleet_runtime.agent.rules.address_change import address_change
from supportfleet_runtime.agent.rules.case import Case, Pending, Rule, RuleAnswer
from supportfleet_runtime.agent.rules.detailed_history import detailed_history
from supportfleet_runtime.agent.rules.greeting import greeting
from supportfleet_runtime.agent.rules.human import human
from supportfleet_runtime.agent.rules.order_status import order_status
from supportfleet_runtime.agent.rules.password_reset import password_reset
from supportfleet_runtime.agent.rules.refund import refund

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "order_status": order_status,
        "password_reset": password_reset,
        "address_change": address_change,
        "refund": refund,
        "detailed_history": detailed_history,
        "human": human,
        "greeting": greeting,
    }
)

__all__ = ["RULES", "Case", "Pending", "Rule", "RuleAnswer"]
