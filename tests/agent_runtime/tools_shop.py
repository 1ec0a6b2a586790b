"""A tool service for tests: a real one on a port of its own, whose connections break on demand."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import func, select

from supportfleet_runtime.agent.breaker import CircuitBreaker
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.toolbox import Authority, ToolResult
from supportfleet_runtime.config import load
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import effects, refunds, tool_effects
from supportfleet_runtime.storage.url import parse_database_url
from supportfleet_runtime.tools.backend import Backend
from supportfleet_runtime.tools.client import HttpTools
from supportfleet_runtime.tools.desk import ToolDesk
from supportfleet_runtime.tools.ledger import Ledger
from supportfleet_runtime.tools.service import PARTS, build_tool_service
from supportfleet_runtime.tools.toolbox import Tools

SCOPE = "default/default"
KEY = "tools-key-0123456789"
KINDS = ("drop-before", "drop-after", "garbage", "fail-after")
REFUND = {"order_number": "A-1003", "amount": 10, "reason": "too small"}
SLOW_SECONDS = 0.3


def open_book(orders: int, customer: str = "cust-1001") -> dict[str, Any]:
    """A configuration with so many orders that can be refunded, of one customer, and limits that let them be."""
    made = [
        {
            "number": f"A-{number}",
            "customerId": customer,
            "status": "delivered",
            "placed": -9,
            "delivered": -3,
            "items": [{"name": "Rope", "price": "50.00"}],
        }
        for number in range(10_000, 10_000 + orders)
    ]
    return {"orderBook": {"orders": made}, "tools": {"refund": {"perCustomerPerDay": 1_000_000}}}


def authority(task: str = "task_1", customer: str = "cust-1001", **more: Any) -> Authority:
    return Authority(customer, task, "conv_1", **more)


@dataclass
class Faults:
    """What goes wrong with the connection, chosen for each request; ``None``: nothing."""

    choose: Callable[[web.Request], str | None] = lambda _request: None
    seen: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        faults = self

        @web.middleware
        async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
            faults.seen.append(f"{request.method} {request.path.split('/')[2] if request.path.count('/') > 1 else ''}")
            return await faults.behave(request, handler)

        self.middleware = middleware

    async def behave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        fault = self.choose(request)
        if fault == "drop-before":
            _close(request)
        response: web.StreamResponse = await handler(request)
        if fault == "drop-after":
            _close(request)
        if fault == "hang-after":
            await self.released.wait()
        if fault == "slow-after":
            await asyncio.sleep(SLOW_SECONDS)
        if fault == "garbage":
            return web.Response(body=b"<html>", content_type="text/html")
        if fault == "fail-after":
            return web.Response(status=502)
        return response

    @classmethod
    def random(cls, seed: int, share: float) -> Faults:
        """Faults on so many of the requests, calls and look-ups alike."""
        dice = random.Random(seed)
        return cls(lambda _request: dice.choice(KINDS) if dice.random() < share else None)

    @classmethod
    def after_commit(cls, seed: int, share: float) -> Faults:
        """Every call is carried out and its connection dropped; faults on so many of the look-ups."""
        looked_up = cls.random(seed, share).choose
        return cls(lambda request: "drop-after" if request.method == "POST" else looked_up(request))


def _close(request: web.Request) -> None:
    assert request.transport
    request.transport.abort()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def tool_service(
    database_url: str, now: Callable[[], datetime], config_dir: str, faults: Faults | None = None
) -> AsyncIterator[str]:
    """The role ``tools``; its address."""
    environ = {"TOOLS_API_KEY": KEY, "DATABASE_URL": database_url, "CONFIG_DIR": config_dir}
    app = build_tool_service(load(environ), Database(parse_database_url(database_url)), now=now)
    if faults:
        app.middlewares.insert(0, faults.middleware)
    async with TestServer(app) as server:
        while app[PARTS].schema is not None:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
        try:
            yield str(server.make_url("")).rstrip("/")
        finally:
            if faults:
                faults.released.set()


@dataclass
class Shop:
    """The agent's tools, and what became of it all in the database."""

    database: Database
    tools: Tools
    backend: Backend
    metrics: Metrics

    async def refund(self, task: str = "task_1", customer: str = "cust-1001", **arguments: Any) -> ToolResult:
        given = {**REFUND, **arguments}
        return await self.tools.call("refund", given, authority(task, customer), within=10)

    async def states(self) -> dict[str, str]:
        """The agent's ledger: state by task."""
        statement = select(effects.c.task_id, effects.c.state)
        return dict(await self.database.read(lambda c: c.execute(statement).all()))

    async def paid(self) -> int:
        """What was paid or filed, in hundredths."""
        statement = select(func.coalesce(func.sum(refunds.c.amount), 0))
        return int(await self.database.read(lambda c: c.execute(statement).scalar_one()))

    async def count(self, table: Any = tool_effects) -> int:
        statement = select(func.count()).select_from(table)
        return int(await self.database.read(lambda c: c.execute(statement).scalar_one()))


def make_shop(
    database: Database,
    now: Callable[[], datetime],
    *,
    url: str | None = None,
    settings: AgentSettings | None = None,
    timeout: float = 5,
    backend: Backend | None = None,
    breaker: CircuitBreaker | None = None,
) -> Shop:
    """The agent's side, over HTTP where there is an address."""
    configured = settings or AgentSettings()
    metrics = Metrics()
    chosen = backend or (
        HttpTools(url, KEY, breaker or CircuitBreaker(time.monotonic, failures=10**9))
        if url
        else ToolDesk(database, lambda: configured, SCOPE, now)
    )
    tools = Tools(
        backend=chosen,
        ledger=Ledger(database, SCOPE, now),
        settings=lambda: configured.tools,
        metrics=metrics,
        scope=SCOPE,
        timeout=timeout,
    )
    return Shop(database, tools, chosen, metrics)
