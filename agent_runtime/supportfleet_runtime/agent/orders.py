"""The order book: what the rules know of a customer's orders.

A sample one is packaged, so that a fresh agent has something true to say; an agent's configuration may bring its own.
A day is a date, or a whole number of days from today (-3: three days ago), so that a sample never goes stale.
A customer sees only orders of their own: ``of_customer`` is the one way in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib import resources
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Day = date | Annotated[int, Field(ge=-36_500, le=36_500, strict=True)]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class OrderStatus(StrEnum):
    """Where an order is in its life."""

    PROCESSING = "processing"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Item(_Record):
    """A line of an order."""

    name: Text
    quantity: int = Field(default=1, ge=1, le=10_000)
    price: Decimal = Field(ge=0, le=1_000_000, decimal_places=2, description="of one piece")


class Order(_Record):
    """What a customer bought, and where it is."""

    number: Annotated[str, Field(pattern=r"^[A-Z]{1,3}-[0-9]{3,8}$")]
    customer_id: Text
    status: OrderStatus
    placed: Day
    expected: Day | None = None
    delivered: Day | None = None
    carrier: Text | None = None
    tracking_number: Text | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "EUR"
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _dates_fit_the_status(self) -> Self:
        if self.status is OrderStatus.DELIVERED and self.delivered is None:
            raise ValueError("a delivered order needs the day it was delivered")
        return self

    @property
    def total(self) -> Decimal:
        """What the customer paid."""
        return sum((item.price * item.quantity for item in self.items), Decimal(0))

    @property
    def title(self) -> str:
        """The order in a few words."""
        more = f" and {len(self.items) - 1} more" if len(self.items) > 1 else ""
        return f"{self.items[0].name}{more}"


class OrderBook(_Record):
    """All orders that are known."""

    orders: Annotated[tuple[Order, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _numbers_are_unique(self) -> Self:
        twice = [number for number, count in Counter(order.number for order in self.orders).items() if count > 1]
        if twice:
            raise ValueError(f"order numbers stand twice: {', '.join(sorted(twice)[:5])}")
        return self

    @cached_property
    def _by_customer(self) -> dict[str, tuple[Order, ...]]:
        grouped: dict[str, list[Order]] = {}
        for order in self.orders:
            grouped.setdefault(order.customer_id, []).append(order)
        return {customer: tuple(orders) for customer, orders in grouped.items()}

    def of_customer(self, customer_id: str) -> Sequence[Order]:
        """This customer's orders, in the book's order."""
        return self._by_customer.get(customer_id, ())


@lru_cache(maxsize=1)
def sample_order_book() -> OrderBook:
    """The packaged sample."""
    text = resources.files(__package__).joinpath("order_book.json").read_text(encoding="utf-8")
    return OrderBook.model_validate_json(text)


def on(day: Day, today: date) -> date:
    """The calendar day that ``day`` means."""
    return day if isinstance(day, date) else today + timedelta(days=day)


def newest_first(orders: Sequence[Order], today: date) -> list[Order]:
    """Orders by the day they were placed, latest first."""
    return sorted(orders, key=lambda order: on(order.placed, today), reverse=True)


def money(amount: Decimal, currency: str) -> str:
    """An amount as a customer reads it."""
    return f"{currency} {amount:,.2f}"


def long_date(day: date) -> str:
    """A day as a customer reads it, whatever the locale: 3 December 2026."""
    return f"{day.day} {day:%B} {day.year}"
