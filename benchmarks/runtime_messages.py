"""Messages a second through the runtime, beside a bare aiohttp server in the same run.

    python benchmarks/runtime_messages.py [--seconds 5] [--concurrency 1 8 64] [--database postgresql://…]

Both run as processes of their own, one after the other, and are sent the same message over kept-alive connections by
a small client (raw HTTP/1.1, so that it costs little). The bare server parses the JSON and answers at once: the
distance between the two is what durability, queue, agent and storage cost. CPU is the server's own, by message.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import NamedTuple

import orjson
import uvloop
from loading.client import Load, exchange, posted
from loading.servers import HERE, Running, Server, free_port, running, scratch

MESSAGE = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
PATH = "/v1/messages"
WARM_UP = 200


class Figures(NamedTuple):
    """What one run of one server gave."""

    load: Load
    cpu_ms: float
    rss_mb: float


async def send(port: int, until: float | None, count: int, found: Load, *, is_continued: bool = False) -> None:
    """Send one request after the other over one connection, until the time or the count is reached."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = posted(port, PATH, orjson.dumps(MESSAGE))
    sent = 0
    while (time.perf_counter() < until) if until else (sent < count):
        started = time.perf_counter()
        status, body = await exchange(reader, writer, request)
        if status != 200:  # noqa: PLR2004 - HTTP's own
            raise RuntimeError(f"{status}: {body.decode(errors='replace')}")
        if is_continued and not sent:
            conversation = orjson.loads(body).get("conversation_id")
            request = posted(port, PATH, orjson.dumps({**MESSAGE, "conversation_id": conversation}))
        found.times.append(time.perf_counter() - started)
        sent += 1
    writer.close()


async def measure(server: Running, concurrency: int, seconds: float, *, is_continued: bool) -> Figures:
    """Load one server with so many connections; each is a conversation that goes on, or new ones."""
    port, found = server.server.port, Load()
    await send(port, None, WARM_UP, Load())
    before, started = server.cpu_seconds, time.perf_counter()
    sending = (send(port, started + seconds, 0, found, is_continued=is_continued) for _ in range(concurrency))
    await asyncio.gather(*sending)
    found.took = time.perf_counter() - started
    return Figures(found, (server.cpu_seconds - before) * 1000 / len(found.times), server.rss_mb)


def servers(url: str) -> list[Server]:
    """The bare server and the runtime."""
    bare, ours = free_port(), free_port()
    settings = {
        "API_PORT": str(ours),
        "DATABASE_URL": url,
        "LLM_PROVIDER": "scripted",
        "RATE_LIMIT": "1000000",  # all messages are one customer's
    }
    command = (sys.executable, "-m", "supportfleet_runtime", "serve")
    return [
        Server("bare aiohttp echo", bare, (sys.executable, HERE / "echo.py", str(bare)), path="/readyz"),
        Server(f"runtime, {url.partition(':')[0]}", ours, command, settings, "/readyz"),
    ]


async def benchmark(seconds: float, levels: list[int], database: str | None, *, is_continued: bool) -> None:
    """Measure both servers at each level of concurrency, and print a table."""
    print(f"| {'server':<28} | at once | messages/s | p50 ms | p99 ms | CPU ms | RSS MB |")
    print(f"|{'-' * 30}|--------:|-----------:|-------:|-------:|-------:|-------:|")
    with scratch() as folder:
        for server in servers(database or f"sqlite:///{folder / 'messages.db'}"):
            async with running(server) as run:
                for concurrency in levels:
                    load, cpu_ms, rss_mb = await measure(run, concurrency, seconds, is_continued=is_continued)
                    latency = f"{load.quantile(0.5):>6.2f} | {load.quantile(0.99):>6.2f}"
                    print(
                        f"| {server.name:<28} | {concurrency:>7} | {load.per_second:>10,.0f}"
                        f" | {latency} | {cpu_ms:>6.3f} | {rss_mb:>6.0f} |"
                    )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description="Messages a second through the runtime.")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64], metavar="N")
    parser.add_argument("--database", help="DATABASE_URL to measure with, else an SQLite file")
    parser.add_argument("--continued", action="store_true", help="each connection goes on with one conversation")
    given = parser.parse_args()
    uvloop.run(benchmark(given.seconds, given.concurrency, given.database, is_continued=given.continued))


if __name__ == "__main__":
    main()
