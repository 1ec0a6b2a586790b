"""The tool desk: carries calls out on the order book and the database, each effect once.

An effect and its key are one transaction: a key that is there has had its effect, one that isn't has not. One
customer's effects wait for each other, so that limits hold however many come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, func, insert, select

from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.locks import one_at_a_time
from supportfleet_runtime.storage.tool_tables import PAID, refunds, tool_effects
from supportfleet_runtime.tools import changes
from supportfleet_runtime.tools.arguments import OrderLookup
from supportfleet_runtime.tools.backend import ToolRequest
from supportfleet_runtime.tools.changes import Case, Change
from supportfleet_runtime.tools.outcome import KeyReusedError, Outcome, ToolsUnavailableError, refused
from supportfleet_runtime.tools.reading import detailed_history, order_lookup

CHANGES: Final[Mapping[str, Change]] = MappingProxyType(
    {
        "refund": changes.refund,
        "create_ticket": changes.create_ticket,
        "address_change": changes.address_change,
        "password_reset": changes.password_reset,
    }
)


class ToolDesk:
    """The tools themselves. Settings may change at any time: each call takes them once."""

    available = True

    def __init__(
        self, database: Database, settings: Callable[[], AgentSettings], scope: str, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._settings = settings
        self._scope = scope
        self._now = now

    async def perform(self, request: ToolRequest, *, within: float) -> Outcome:  # noqa: ARG002 - the database has a limit
        """Carry a call out. Raises ``KeyReusedError``, and ``StorageError`` where the database fails."""
        settings, now = self._settings(), self._now()
        if request.tool.name not in settings.tools.enabled:
            return refused("This can't be done here.")
        case = Case(request, settings, self._scope, now)
        if not request.tool.changes:
            return await self._look_up(case)
        if request.key is None:
            raise ToolsUnavailableError("a call that changes something needs a key")
        return await self._database.write(lambda connection: self._change(connection, case))

    async def effect(self, key: str, *, within: float) -> Outcome | None:  # noqa: ARG002 - the database has a limit
        """What came of the call with this key."""
        return await self._database.read(lambda connection: self._known(connection, key))

    async def close(self) -> None:
        """The database is closed by who opened it."""

    async def _look_up(self, case: Case) -> Outcome:
        customer, today = case.request.customer_id, case.now.date()
        orders = case.settings.order_book.of_customer(customer)
        numbers = [order.number for order in orders]
        paid = await self._database.read(lambda connection: self._paid_back(connection, numbers)) if orders else {}
        if isinstance(case.request.arguments, OrderLookup):
            return order_lookup(orders, case.request.arguments.order_number, paid, today)
        return detailed_history(orders, paid, today)

    def _paid_back(self, connection: Connection, orders: Sequence[str]) -> dict[str, int]:
        statement = (
            select(refunds.c.order_number, func.sum(refunds.c.amount))
            .where(refunds.c.scope == self._scope, refunds.c.order_number.in_(orders))
            .where(refunds.c.state == PAID)
            .group_by(refunds.c.order_number)
        )
        return {number: int(amount) for number, amount in connection.execute(statement)}

    def _change(self, connection: Connection, case: Case) -> Outcome:
        """Have the effect and note its key, or replay what came of it."""
        request = case.request
        one_at_a_time(connection, f"{self._scope}/{request.customer_id}")
        row = connection.execute(select(tool_effects).where(tool_effects.c.key == request.key)).one_or_none()
        hashed = request.tool.arguments_hash(request.arguments)
        if row is not None:
            owner = (row.scope, row.customer_id, row.tool, row.arguments_hash)
            if owner != (self._scope, request.customer_id, request.tool.name, hashed):
                raise KeyReusedError("the key was used for another call")
            return Outcome.model_validate_json(row.outcome)
        outcome = CHANGES[request.tool.name](connection, case)
        values = {
            "key": request.key,
            "scope": self._scope,
            "customer_id": request.customer_id,
            "tool": request.tool.name,
            "arguments_hash": hashed,
            "outcome": outcome.model_dump_json(),
            "created_at": case.now,
        }
        connection.execute(insert(tool_effects), [values])
        return outcome

    def _known(self, connection: Connection, key: str) -> Outcome | None:
        statement = select(tool_effects.c.outcome).where(tool_effects.c.key == key, tool_effects.c.scope == self._scope)
        found = connection.execute(statement).scalar_one_or_none()
        return None if found is None else Outcome.model_validate_json(found)
