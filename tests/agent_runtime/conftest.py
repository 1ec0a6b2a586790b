"""What the runtime's tests share: a clock that is set, a database of their own, and agents that really serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import settings

from supportfleet_runtime.app import PARTS, build
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.config import load
from supportfleet_runtime.gateway.server import make_runner
from supportfleet_runtime.parts import Parts
from supportfleet_runtime.roles import Role
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.url import parse_database_url

START_SECONDS = 30

settings.register_profile("supportfleet", deadline=None)  # a busy machine is no failed property
settings.load_profile("supportfleet")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands configure logging for their process, onto a stream that ends with the test: undo it."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Server(TestServer):
    """A server as the commands make it."""

    async def _make_runner(self, **options: Any) -> web.AppRunner:
        return make_runner(self.app, **options)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    value: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.value

    def advance(self, seconds: float) -> None:
        self.value += timedelta(seconds=seconds)


@dataclass
class RunningAgent:
    """An agent that serves on a port of its own."""

    client: TestClient[web.Request, web.Application]
    parts: Parts

    async def say(self, text: str, **members: Any) -> dict[str, Any]:
        """Send a message as cust-1001, which must be answered."""
        async with self.client.post("/v1/messages", json={"customer_id": "cust-1001", "text": text, **members}) as got:
            body: dict[str, Any] = await got.json()
            assert got.status == 200, body
            return body

    async def metric(self, name: str) -> float:
        """A sample of /metrics, by its name and labels."""
        async with self.client.get("/metrics") as got:
            lines = (await got.text()).splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runtime.db'}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with the schema."""
    opened = Database(parse_database_url(database_url))
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def start_agent(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start agents on one database; ``until_ready=False`` returns while they come up."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            role: Role = Role.SERVE,
            *,
            until_ready: bool = True,
            now: Callable[[], datetime] = utc_now,
            **environ: str,
        ) -> RunningAgent:
            given = {"DATABASE_URL": database_url, "CONFIG_DIR": str(tmp_path), "MODEL_DIR": str(tmp_path), **environ}
            app = build(load(given), role, now=now)
            client = await stack.enter_async_context(TestClient(Server(app)))
            if until_ready:
                await asyncio.wait_for(app[PARTS].progress.ready.wait(), START_SECONDS)
            return RunningAgent(client, app[PARTS])

        yield start


@pytest.fixture
async def messages_api() -> AsyncIterator[Any]:
    """A local server that speaks the Messages API."""
    fake = runpy.run_path(str(Path(__file__).parent / "messages_api.py"))["MessagesApi"]()
    async with fake.serving():
        yield fake
