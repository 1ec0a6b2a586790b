"""What tools are given: checked to the letter, and turned into the JSON schemas that models and callers are shown.

Nothing in them says who the customer is: that is not the model's to say.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

WRITTEN: Final = r"^[^\x00]*[^\x00-\x20][^\x00]*$"
"""Something is written, and nothing that can't be stored."""
MAX_AMOUNT: Final = 1_000_000


def _hundredths(value: Any) -> Any:
    """A number as the decimal it was meant as: 0.35 is not 0.35000000000000003."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("it is no number")  # noqa: TRY004 - pydantic gathers ValueErrors
    rounded: Any = round(value, 2)
    return rounded if abs(rounded - value) < 1e-9 else value  # noqa: PLR2004 - far below what is paid


OrderNumber = Annotated[
    str, Field(pattern=r"^[A-Z]{1,3}-[0-9]{3,8}$", description="The order's number, such as A-1001.")
]
Line = Annotated[str, Field(min_length=1, max_length=120, pattern=WRITTEN)]
Amount = Annotated[
    Decimal,
    BeforeValidator(_hundredths),
    Field(gt=0, le=MAX_AMOUNT, decimal_places=2),
    PlainSerializer(float, when_used="json"),
    WithJsonSchema({"type": "number", "minimum": 0.01, "maximum": MAX_AMOUNT, "multipleOf": 0.01}),
]


class Arguments(BaseModel):
    """Arguments of a tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoArguments(Arguments):
    """None at all."""


class OrderLookup(Arguments):
    """Which order."""

    order_number: OrderNumber


class Refund(Arguments):
    """What to pay back, and why."""

    order_number: OrderNumber
    amount: Annotated[
        Amount | None, Field(description="How much, in the order's currency. Left out: all that is not paid back yet.")
    ] = None
    reason: Annotated[
        str, Field(min_length=1, max_length=500, pattern=WRITTEN, description="The customer's reason, in a few words.")
    ]

    @property
    def cents(self) -> int | None:
        """The amount in hundredths."""
        return None if self.amount is None else int(self.amount * 100)


class CreateTicket(Arguments):
    """What a person should look into."""

    subject: Annotated[str, Field(min_length=1, max_length=200, pattern=WRITTEN)]
    description: Annotated[str, Field(min_length=1, max_length=4000, pattern=WRITTEN)]
    order_number: OrderNumber | None = None


class Address(Arguments):
    """Where a parcel goes."""

    name: Line
    street: Line
    postal_code: Annotated[str, Field(min_length=1, max_length=20, pattern=WRITTEN)]
    city: Line
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="Two letters, ISO 3166.")]


class AddressChange(Arguments):
    """Where an order is to go instead."""

    order_number: OrderNumber
    address: Address
