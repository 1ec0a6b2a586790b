"""The tool service: who may call it, what it takes, and what its agent makes of its answers."""

from __future__ import annotations

import asyncio
import importlib
import json
import runpy
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supportfleet_runtime.agent.breaker import CircuitBreaker
from supportfleet_runtime.config import load
from supportfleet_runtime.errors import ConfigurationError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import refunds
from supportfleet_runtime.tools.backend import ToolRequest
from supportfleet_runtime.tools.catalogue import TOOLS
from supportfleet_runtime.tools.client import HttpTools
from supportfleet_runtime.tools.openapi import document
from supportfleet_runtime.tools.outcome import KeyReusedError, OutcomeUnknownError, ToolError, ToolsUnavailableError
from supportfleet_runtime.tools.service import build_tool_service

SHOP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "tools_shop.py")))
KEY = "eff_0123456789abcdef"
BODY = {"customer_id": "cust-1001", "arguments": SHOP.REFUND}


class Client:
    """Sends requests with the service's key."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self.url = url
        self.session = session

    async def post(self, tool: str, body: Any = BODY, key: str | None = KEY, **headers: str) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {SHOP.KEY}", "Content-Type": "application/json", **headers}
        if key:
            sent["Idempotency-Key"] = key
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(f"{self.url}/v1/tools/{tool}", data=data, headers=sent) as got:
            return got.status, await got.json(content_type=None)

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path, headers=headers) as got:
            return got.status, await got.json(content_type=None)


@pytest.fixture
async def service(database_url: str, clock: Any, tmp_path: Path) -> AsyncIterator[Client]:
    async with SHOP.tool_service(database_url, clock, str(tmp_path)) as url, ClientSession() as session:
        yield Client(url, session)


class TestRequests:
    async def test_without_the_key_nothing_is_told(self, service: Client) -> None:
        """All but probes and metrics needs the service's key."""
        for sent in ({}, {"Authorization": "Bearer wrong-key-0123456789"}):
            assert (await service.get("/openapi.json", **sent))[0] == 401
            assert (await service.get(f"/v1/effects/{KEY}", **sent))[0] == 401
        assert (await service.post("refund", Authorization="Bearer x"))[0] == 401
        assert (await service.get("/healthz"))[0] == (await service.get("/readyz"))[0] == 200

    async def test_a_key_is_carried_out_once(self, service: Client, database: Database) -> None:
        """The same key is answered again; with another amount, customer or tool it is refused."""
        first = await service.post("refund")
        assert (first[0], first[1]["status"]) == (200, "done")
        assert await service.post("refund") == first
        for tool, body in (
            ("refund", {**BODY, "arguments": {**SHOP.REFUND, "amount": 11}}),
            ("refund", {**BODY, "customer_id": "cust-1002"}),
            ("password_reset", {"customer_id": "cust-1001"}),
        ):
            status, problem = await service.post(tool, body)
            assert (status, problem["type"]) == (409, "urn:supportfleet:problem:key-reused")
        assert len(await database.read(lambda c: c.execute(refunds.select()).all())) == 1
        headers = {"Authorization": f"Bearer {SHOP.KEY}"}
        assert await service.get(f"/v1/effects/{KEY}", **headers) == first
        assert (await service.get("/v1/effects/eff_ffffffffffffffff", **headers))[0] == 404

    @pytest.mark.parametrize(
        ("status", "changes"),
        [
            (400, {"key": None}),
            (400, {"key": "short"}),
            (400, {"body": b"{"}),
            (400, {"body": b"\xff"}),
            (415, {"Content-Type": "text/plain"}),
            (415, {"Content-Encoding": "gzip"}),
            (413, {"body": b'{"a": "' + b"x" * 40_000 + b'"}'}),
            (422, {"body": []}),
            (422, {"body": {"arguments": SHOP.REFUND}}),
            (422, {"body": {**BODY, "customer_id": 1001}}),
            (422, {"body": {**BODY, "customer_id": "a\nb"}}),
            (422, {"body": {**BODY, "customer": "x"}}),
            (422, {"body": {**BODY, "arguments": {**SHOP.REFUND, "amount": "-1"}}}),
            (404, {"tool": "drop_tables"}),
        ],
    )
    async def test_wrong_requests_are_problems(
        self, service: Client, database: Database, status: int, changes: dict[str, Any]
    ) -> None:
        """What is wrong with a request is told as a problem document, and nothing is done."""
        got, problem = await service.post(changes.pop("tool", "refund"), **changes)
        assert (got, problem["status"]) == (status, status)
        assert problem["type"].startswith("urn:supportfleet:problem:")
        assert not await database.read(lambda c: c.execute(refunds.select()).all())

    def test_it_does_not_start_without_a_key(self, tmp_path: Path, database: Database, clock: Any) -> None:
        """A tool service that anybody could call is a mistake, and so is an agent without its key."""
        with pytest.raises(ConfigurationError, match="TOOLS_API_KEY"):
            build_tool_service(load({"CONFIG_DIR": str(tmp_path)}), database, now=clock)
        with pytest.raises(ConfigurationError, match="TOOLS_API_KEY"):
            load({"CONFIG_DIR": str(tmp_path), "TOOLS_URL": "http://tools:8081"})

    async def test_its_description_is_true(self, service: Client) -> None:
        """Requests made from the OpenAPI document, right and wrong ones, are answered as it says."""
        tried = await asyncio.to_thread(exercise, service.url)
        assert set(tried) == {*TOOLS, "effect"}


def exercise(url: str, examples: int = 5) -> list[str]:
    """Send generated requests to every operation; the operations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        schemathesis = importlib.import_module("schemathesis")  # it takes a second
        schema = schemathesis.openapi.from_dict(document())
        tried = []
        for operation in (found.ok() for found in schema.get_all_operations()):
            modes = list(schemathesis.GenerationMode)
            cases = st.one_of(*[operation.as_strategy(generation_mode=mode) for mode in modes])

            @given(case=cases)
            @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None, deadline=None)
            def check(case: Any) -> None:
                case.call_and_validate(base_url=url, headers={"Authorization": f"Bearer {SHOP.KEY}"})

            check()
            tried.append(operation.definition.raw["operationId"])
    return tried


class Answers:
    """A service that answers all requests in one way."""

    def __init__(self, status: int, body: bytes = b"{}") -> None:
        self.status = status
        self.body = body

    async def give(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.status, body=self.body, headers={"Location": "http://127.0.0.1:9/"})


class TestTheAgentsSide:
    @pytest.mark.parametrize(
        ("answer", "call", "lookup"),
        [
            (Answers(200, b'{"status": "done", "message": "m"}'), None, None),
            (Answers(200, b"[]"), OutcomeUnknownError, OutcomeUnknownError),
            (Answers(200, b"\xff" * 300_000), OutcomeUnknownError, OutcomeUnknownError),
            (Answers(302), ToolsUnavailableError, OutcomeUnknownError),
            (Answers(401), ToolsUnavailableError, OutcomeUnknownError),
            (Answers(404), ToolsUnavailableError, OutcomeUnknownError),
            (Answers(409), KeyReusedError, OutcomeUnknownError),
            (Answers(422), ToolsUnavailableError, OutcomeUnknownError),
            (Answers(429), ToolsUnavailableError, OutcomeUnknownError),
            (Answers(500), OutcomeUnknownError, OutcomeUnknownError),
            (Answers(503), OutcomeUnknownError, OutcomeUnknownError),
        ],
    )
    async def test_what_an_answer_means(
        self, answer: Answers, call: type[ToolError] | None, lookup: type[ToolError] | None
    ) -> None:
        """Refusals did nothing, failures may have, and only the service's own word says that there was no effect."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer.give)
        tool = TOOLS["refund"]
        asked = ToolRequest(tool, tool.arguments.model_validate(SHOP.REFUND), "cust-1001", None, KEY)
        async with TestServer(app) as server:
            client = HttpTools(str(server.make_url("")), SHOP.KEY, CircuitBreaker(lambda: 0.0))
            calls: list[tuple[Callable[[], Awaitable[Any]], type[ToolError] | None]] = [
                (lambda: client.perform(asked, within=5), call),
                (lambda: client.effect(KEY, within=5), lookup),
            ]
            for work, expected in calls:
                if expected is None:
                    assert (await work()).status == "done"
                else:
                    with pytest.raises(expected):
                        await work()
            await client.close()
