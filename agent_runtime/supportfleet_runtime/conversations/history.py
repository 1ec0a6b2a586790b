"""A customer's whole history: every order, and every conversation with its messages.

It is read in pages, so that a customer of many years holds up neither the database nor the process, and ends at
``MAX_MESSAGES``; ``is_complete`` says whether that was all. Only this customer's rows are ever asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, select

from supportfleet_runtime.agent.orders import Order, OrderBook, newest_first, on
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import conversations, messages

PAGE: Final = 100
MAX_MESSAGES: Final = 20_000

Report = Callable[[int], Awaitable[None]]
"""Is told how far the work is, in percent."""


class Histories:
    """The histories of one agent's (``scope``) customers."""

    def __init__(
        self,
        database: Database,
        scope: str,
        book: Callable[[], OrderBook],
        *,
        now: Callable[[], datetime],
        page: int = PAGE,
        most: int = MAX_MESSAGES,
    ) -> None:
        self._database = database
        self._scope = scope
        self._book = book
        self._now = now
        self._page = page
        self._most = most

    async def detailed_history(self, customer_id: str, report: Report) -> dict[str, Any]:
        """Everything that is known of the customer, latest first, as JSON."""
        values = {"scope_": self._scope, "customer_": customer_id}
        number = await self._database.read(lambda connection: connection.execute(_NUMBER, values).scalar_one())
        found: list[dict[str, Any]] = []
        told = 0
        after = ""
        while told < self._most:
            page = await self._database.read(lambda connection: self._read(connection, customer_id, after))  # noqa: B023 - run at once
            found += page
            told += sum(len(one["messages"]) for one in page)
            if len(page) < self._page:
                break
            after = page[-1]["conversation_id"]
            await report(min(99, 100 * len(found) // max(1, number)))
        found.sort(key=lambda one: one["created_at"], reverse=True)
        return {
            "customer_id": customer_id,
            "orders": [_order(order, self._now().date()) for order in self._newest(customer_id)],
            "conversations": found,
            "is_complete": told < self._most,
        }

    def _newest(self, customer_id: str) -> list[Order]:
        return newest_first(self._book().of_customer(customer_id), self._now().date())

    def _read(self, connection: Connection, customer_id: str, after: str) -> list[dict[str, Any]]:
        """A page of conversations, in the order of their ids, with their messages."""
        values = {"scope_": self._scope, "customer_": customer_id, "after_": after, "limit_": self._page}
        rows = connection.execute(_CONVERSATIONS, values).all()
        said: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if rows:
            for row in connection.execute(_MESSAGES, {"ids_": [row.id for row in rows]}):
                said[row.conversation_id].append(
                    {"role": row.role, "text": row.text, "intent": row.intent, "created_at": row.created_at}
                )
        return [
            {
                "conversation_id": row.id,
                "status": "open" if row.escalated_at is None else "escalated",
                "created_at": row.created_at,
                "messages": said[row.id],
            }
            for row in rows
        ]


def _order(order: Order, today: date) -> dict[str, Any]:
    return {
        "number": order.number,
        "status": order.status.value,
        "placed": on(order.placed, today),
        "delivered": None if order.delivered is None else on(order.delivered, today),
        "carrier": order.carrier,
        "tracking_number": order.tracking_number,
        "currency": order.currency,
        "total": str(order.total),
        "items": [{"name": it.name, "quantity": it.quantity, "price": str(it.price)} for it in order.items],
    }


def _is_customers() -> Any:
    return (conversations.c.scope == bindparam("scope_")) & (conversations.c.customer_id == bindparam("customer_"))


def _conversations() -> Select[Any]:
    columns = (conversations.c.id, conversations.c.created_at, conversations.c.escalated_at)
    is_next = conversations.c.id > bindparam("after_")
    return select(*columns).where(_is_customers(), is_next).order_by(conversations.c.id).limit(bindparam("limit_"))


_NUMBER = select(func.count()).select_from(conversations).where(_is_customers())
_CONVERSATIONS = _conversations()
_MESSAGES = (
    select(messages)
    .where(among("ids_", messages.c.conversation_id))
    .order_by(messages.c.conversation_id, messages.c.turn, messages.c.role.desc())
)
