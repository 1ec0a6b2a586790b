"""Does a message cost the same, however much is stored? The runtime on an empty SQLite file and on a full one.

    python benchmarks/stored.py [--stored 200000] [--rounds 5] [--seconds 3] [--concurrency 16] [--limit 1.5]

Both are ``serve`` on one core, by turns, before the same fake Messages API of 0 ms. The full one's file holds so many
answered messages, each with its task and conversation. Exit code 1 where a message was not answered, or where it costs
more than ``--limit`` times as much on the full file, as it does where a statement reads a whole table.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from loading.client import FROM_THE_MODEL, Load, Target, always, load, questions
from loading.servers import Cores, Running, messages_api, running, runtime, scratch

WARM_UP_SECONDS = 2.0
NUMBERS = "WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
WHEN = "'2026-01-01 00:00:00.000000'"
SCOPE = "'default/default'"
ROWS = {
    "conversations (id, scope, customer_id, turns, created_at, updated_at)": (
        f"'conv_' || n, {SCOPE}, 'cust-' || (n % 1000), 1, {WHEN}, {WHEN}"
    ),
    "tasks (id, queue, conversation_id, turn, state, tries, visible_at, created_at, finished_at)": (
        f"'task_' || n, {SCOPE}, 'conv_' || n, 1, 'done', 1, {WHEN}, {WHEN}, {WHEN}"
    ),
    "messages (conversation_id, turn, role, id, text, created_at)": (
        f"'conv_' || n, 1, 'customer', 'msg_' || n, 'Do you have the walking boots in green?', {WHEN}"
    ),
}


def fill(file: Path, number: int) -> None:
    """Store so many answered messages, as if they had come long ago."""
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database, database:
        for table, values in ROWS.items():
            database.execute(f"INSERT INTO {table} {NUMBERS} SELECT {values} FROM numbers", (number,))  # noqa: S608 - ours


async def cost(server: Running, target: Target, connections: int, seconds: float) -> tuple[float, Load]:
    """A message's milliseconds of processor time."""
    before = server.cpu_seconds
    found = await load(target, connections, always(seconds), seconds)
    return (server.cpu_seconds - before) * 1000 / max(1, len(found.times)), found


async def benchmark(options: argparse.Namespace) -> bool:
    """Measure, and print it; whether all was well."""
    stored, rounds, connections = options.stored, options.rounds, options.concurrency
    model, cores = messages_api(0), Cores.of_this_machine()
    costs: dict[str, list[float]] = {"empty": [], "full": []}
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    wrong: list[str] = []
    with scratch() as folder:
        files = {name: folder / f"{name}.db" for name in costs}
        empty, full = (runtime("serve", model, f"sqlite:///{file}") for file in files.values())
        async with running(model, cores.rest), running(empty, cores.measured) as a, running(full, cores.measured) as b:
            fill(files["full"], stored)
            servers = {
                name: (server, Target(server.server.port, "/v1/messages", questions(), expected=FROM_THE_MODEL))
                for name, server in {"empty": a, "full": b}.items()
            }
            for server, target in servers.values():
                await cost(server, target, connections, WARM_UP_SECONDS)
            for _ in range(rounds):
                for name, (server, target) in servers.items():
                    spent, found = await cost(server, target, connections, options.seconds)
                    costs[name].append(spent)
                    rates[name].append(found.per_second)
                    wrong += found.wrong
    print(f"{connections} at once, {rounds} rounds\n\n| file | messages/s | CPU ms a message |\n|---|---:|---:|")
    for name, stands in {"empty": "empty", "full": f"{stored:,} messages stored"}.items():
        print(f"| {stands} | {statistics.median(rates[name]):.0f} | {statistics.median(costs[name]):.2f} |")
    ratio = statistics.median(full / empty for empty, full in zip(costs["empty"], costs["full"], strict=True))
    print(f"\na message costs {ratio:.2f} times as much on the full file; answered wrongly: {wrong[:1] or 'none'}")
    return bool(ratio <= options.limit and not wrong)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stored", type=int, default=200_000, help="messages in the full file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each server in each round")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--limit", type=float, default=1.5, help="how many times as much a message may cost")
    if not uvloop.run(benchmark(parser.parse_args(argv))):
        sys.exit(1)


if __name__ == "__main__":
    main()
