"""The tools there are: their arguments, what a language model is told of them, and what makes two calls the same.

A tool that changes something has an identity within one message: the arguments in ``identity`` are part of the effect's
key, so a second refund of the same order in the same message is the first one's repetition. The arguments in ``bound``
may not differ under one key: the same refund with another amount is refused. All others, such as a reason in words,
may: a model that is asked again after a crash words it differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import orjson

from supportfleet_runtime.agent.toolbox import ToolName, ToolSpec
from supportfleet_runtime.tools.arguments import (
    AddressChange,
    Arguments,
    CreateTicket,
    NoArguments,
    OrderLookup,
    Refund,
)


@dataclass(frozen=True)
class Tool:
    """A tool. ``is_long`` marks what may take longer than a customer waits: fit for a task of its own."""

    name: ToolName
    description: str
    arguments: type[Arguments]
    changes: bool = False
    is_long: bool = False
    identity: Sequence[str] = ()
    bound: Sequence[str] = ()

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The arguments' JSON schema."""
        return self.arguments.model_json_schema()

    @property
    def spec(self) -> ToolSpec:
        """What a language model is told."""
        return ToolSpec(self.name, self.description, self.schema)

    def key(self, scope: str, task_id: str, arguments: Arguments) -> str:
        """The key of the effect that a call has: the same for a repetition in the same message."""
        return f"eff_{_digest(scope, task_id, self.name, *_values(arguments, self.identity))[:48]}"

    def arguments_hash(self, arguments: Arguments) -> str:
        """What may not differ under one key."""
        return _digest(self.name, *_values(arguments, (*self.identity, *self.bound)))


TOOLS: Final[Mapping[str, Tool]] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            Tool(
                "order_lookup",
                "Look up one of the customer's orders: status, dates, tracking, items, total, and what was paid back.",
                OrderLookup,
            ),
            Tool(
                "detailed_history",
                "List all orders of the customer with items and amounts, latest first.",
                NoArguments,
                is_long=True,
            ),
            Tool(
                "refund",
                "Pay back a delivered order of the customer, wholly or in part. Only where the customer asks for it."
                " Limits are checked; a refund above them is passed to a person.",
                Refund,
                changes=True,
                identity=("order_number",),
                bound=("amount",),
            ),
            Tool(
                "create_ticket",
                "Open a ticket for the support team, for what you can't solve yourself. One for each message.",
                CreateTicket,
                changes=True,
            ),
            Tool(
                "address_change",
                "Change the delivery address of an order of the customer that is not sent yet.",
                AddressChange,
                changes=True,
                identity=("order_number",),
                bound=("address",),
            ),
            Tool(
                "password_reset",
                "Note that the customer wants a new password, and get the page where they set it.",
                NoArguments,
                changes=True,
            ),
        )
    }
)
LONG_TOOLS: Final = frozenset(name for name, tool in TOOLS.items() if tool.is_long)


def _values(arguments: Arguments, names: Sequence[str]) -> list[str]:
    values = arguments.model_dump(mode="json", include=set(names))
    if isinstance(arguments, Refund) and "amount" in names:  # 10 and 10.00 are one amount
        values["amount"] = arguments.cents
    return [orjson.dumps(values.get(name), option=orjson.OPT_SORT_KEYS).decode() for name in names]


def _digest(*parts: str) -> str:
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
