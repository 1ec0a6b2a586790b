"""Asking a Prometheus, one that behaves and several that do not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from supportfleet_operator.cluster import prometheus
from supportfleet_operator.cluster.prometheus import PrometheusClient, Reply, Server, asking

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
def serve(served: Callable[[str, str, Handler], Awaitable[int]]) -> Serve:
    """Serves the query API with a handler; gives the address."""

    async def start(handler: Handler) -> str:
        return f"http://127.0.0.1:{await served('GET', '/prefix/api/v1/query', handler)}/prefix"

    return start


async def ask(server: Server, *queries: str) -> dict[str, Reply]:
    async with asking() as session:
        return dict(await PrometheusClient(session).ask(server, queries))


async def test_each_query_gets_its_answer(serve: Serve) -> None:
    """The query goes out as it is, below the address's path, with the token; the same one goes out once."""
    seen: list[tuple[str, str | None]] = []

    async def echo(request: web.Request) -> web.Response:
        seen.append((request.query["query"], request.headers.get("Authorization")))
        return web.Response(text=request.query["query"])

    address = await serve(echo)
    query = 'sum(rate(a{b="c&d=e"}[1m])) > 0'
    found = await ask(Server(address, 5, "secret"), query, "up", query)
    assert found == {query: Reply(query.encode()), "up": Reply(b"up")}
    assert sorted(seen) == [(query, "Bearer secret"), ("up", "Bearer secret")]


@pytest.mark.parametrize("status", [400, 422, 503])
async def test_prometheus_own_errors_are_answers(serve: Serve, status: int) -> None:
    """A bad query has an answer, which says what is wrong with it."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "error": "parse error"}, status=status)

    found = await ask(Server(await serve(refuse), 5), "up")
    assert found["up"].body is not None
    assert b"parse error" in found["up"].body


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (401, "bearerTokenSecretRef"),
        (403, "bearerTokenSecretRef"),
        (404, "address"),
        (302, "address"),
        (500, "answered 500"),
    ],
)
async def test_what_stands_before_it_is_no_answer(serve: Serve, status: int, field: str) -> None:
    """Whoever else answers says nothing about a figure; the reason names the field to look at."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/prefix/api/v1/query"}, text="<html>")

    reply = (await ask(Server(await serve(refuse), 5), "up"))["up"]
    assert reply.body is None
    assert field in reply.why


async def test_a_silent_one_costs_its_timeout(serve: Serve) -> None:
    """No answer in time is no answer, for each of the queries, all at once."""

    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(2)
        return web.Response(text="late")

    began = asyncio.get_running_loop().time()
    found = await ask(Server(await serve(silent), 0.2), "a", "b", "c")
    assert asyncio.get_running_loop().time() - began < 1.5
    assert all(reply.body is None and "within 0.2 s" in reply.why for reply in found.values())


async def test_an_answer_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless answer fills no memory."""
    monkeypatch.setattr(prometheus, "MOST_BYTES", 1000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * 1000)
        return response

    reply = (await ask(Server(await serve(endless), 5), "up"))["up"]
    assert reply.body is None
    assert "more than 1000 bytes" in reply.why


async def test_nobody_there() -> None:
    """A refused connection is said, with the address."""
    reply = (await ask(Server("http://127.0.0.1:1", 5), "up"))["up"]
    assert reply.body is None
    assert "http://127.0.0.1:1 cannot be reached" in reply.why


async def test_the_token_is_never_told(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a log, nor a reason, nor the server's own text form has it, even where it cannot be sent."""
    caplog.set_level(logging.DEBUG)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401)

    address = await serve(refuse)
    for token in ("hush-hush", "hush-hush\r\nX-Evil: 1"):
        server = Server(address, 5, token)
        reply = (await ask(server, "up"))["up"]
        assert reply.body is None
        assert "hush" not in reply.why + repr(server) + caplog.text


async def test_the_token_stays_with_its_server(serve: Serve) -> None:
    """A redirect is not followed: the token is for one address."""
    asked: list[str] = []

    async def other(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.Response(text="{}")

    elsewhere = await serve(other)

    async def send_on(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"{elsewhere}/api/v1/query")

    await ask(Server(await serve(send_on), 5, "secret"), "up")
    assert asked == []
