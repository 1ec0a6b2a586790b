"""Messages a second through the runtime, beside a bare aiohttp server in the same run.

    python benchmarks/runtime_messages.py [--seconds 5] [--concurrency 1 8 64] [--database postgresql://…]

Both run as processes of their own, one after the other, and are sent the same message over kept-alive connections by
a small client (raw HTTP/1.1, so that it costs little). The bare server parses the JSON and answers at once: the
distance between the two is what durability, queue, agent and storage cost. CPU is the server's own, by message.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import orjson
import psutil
import uvloop
from aiohttp import ClientSession, web

BODY = orjson.dumps({"customer_id": "cust-1001", "text": "Where is my order A-1001?"})
START_SECONDS = 60
WARM_UP = 200


class Figures(NamedTuple):
    """What one run of one server gave."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    rss_mb: float


def request_bytes(port: int, conversation: str | None = None) -> bytes:
    """The request, as it goes over the wire."""
    body = orjson.dumps({**orjson.loads(BODY), "conversation_id": conversation}) if conversation else BODY
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(port: int, until: float | None, count: int, times: list[float], *, is_continued: bool = False) -> None:
    """Send one request after the other over one connection, until the time or the count is reached."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = request_bytes(port)
    sent = 0
    while (time.perf_counter() < until) if until else (sent < count):
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        if is_continued and not sent:
            request = request_bytes(port, orjson.loads(body).get("conversation_id"))
        times.append(time.perf_counter() - started)
        sent += 1
    writer.close()


async def measure(
    port: int, process: psutil.Process, concurrency: int, seconds: float, *, is_continued: bool
) -> Figures:
    """Load one server with so many connections; each is a conversation that goes on, or new ones."""
    await send(port, None, WARM_UP, [])
    times: list[float] = []
    before = sum(process.cpu_times()[:2])
    started = time.perf_counter()
    sending = (send(port, started + seconds, 0, times, is_continued=is_continued) for _ in range(concurrency))
    await asyncio.gather(*sending)
    took = time.perf_counter() - started
    cpu = sum(process.cpu_times()[:2]) - before
    times.sort()
    return Figures(
        per_second=len(times) / took,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[int(len(times) * 0.99)] * 1000,
        cpu_ms=cpu / len(times) * 1000,
        rss_mb=process.memory_info().rss / 2**20,
    )


@contextlib.asynccontextmanager
async def running(*command: str, port: int, path: str, **environ: str) -> AsyncIterator[psutil.Process]:
    """A server as a process, from when it answers until it is told to stop."""
    started = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environ}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_SECONDS), ClientSession() as session:
            while not await answers(session, f"http://127.0.0.1:{port}{path}"):  # noqa: ASYNC110 - another process  # noqa: ASYNC110 - another process sets no Event
                await asyncio.sleep(0.05)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        await started.wait()


async def answers(session: ClientSession, url: str) -> bool:
    """Whether a server is ready."""
    try:
        async with session.get(url) as response:
            return response.status == web.HTTPOk.status_code
    except OSError:
        return False


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_echo(port: int) -> None:
    """The bare server: parse, answer."""

    async def echo(request: web.Request) -> web.Response:
        message = orjson.loads(await request.read())
        return web.Response(body=orjson.dumps({"reply": message["text"]}), content_type="application/json")

    async def ready(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/messages", echo)
    app.router.add_get("/readyz", ready)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


async def benchmark(seconds: float, levels: list[int], database: str | None, *, is_continued: bool) -> None:
    """Measure both servers at each level of concurrency, and print a table."""
    folder = Path(tempfile.mkdtemp(prefix="supportfleet-benchmark-"))
    url = database or f"sqlite:///{folder / 'messages.db'}"
    print(f"| {'server':<28} | at once | messages/s | p50 ms | p99 ms | CPU ms | RSS MB |")
    print(f"|{'-' * 30}|--------:|-----------:|-------:|-------:|-------:|-------:|")
    echo, runtime = free_port(), free_port()
    servers = (
        ("bare aiohttp echo", echo, (sys.executable, __file__, "--echo", str(echo)), {}),
        (
            f"runtime, {url.partition(':')[0]}",
            runtime,
            (sys.executable, "-m", "supportfleet_runtime", "serve"),
            {
                "API_PORT": str(runtime),
                "DATABASE_URL": url,
                "LLM_PROVIDER": "scripted",
                "RATE_LIMIT": "1000000",  # all messages are one customer's
            },
        ),
    )
    try:
        for name, port, command, environ in servers:
            async with running(*command, port=port, path="/readyz", **environ) as process:
                for concurrency in levels:
                    got = await measure(port, process, concurrency, seconds, is_continued=is_continued)
                    print(
                        f"| {name:<28} | {concurrency:>7} | {got.per_second:>10,.0f} | {got.p50_ms:>6.2f} |"
                        f" {got.p99_ms:>6.2f} | {got.cpu_ms:>6.3f} | {got.rss_mb:>6.0f} |"
                    )
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description="Messages a second through the runtime.")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    parser.add_argument("--database", help="DATABASE_URL to measure with, else an SQLite file")
    parser.add_argument("--continued", action="store_true", help="each connection goes on with one conversation")
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        run_echo(arguments.echo)
    else:
        uvloop.run(
            benchmark(arguments.seconds, arguments.concurrency, arguments.database, is_continued=arguments.continued)
        )


if __name__ == "__main__":
    main()
