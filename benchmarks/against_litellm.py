"""The runtime on one core against LiteLLM's proxy, before the same fake Messages API, in the same run.

    python benchmarks/against_litellm.py [--rounds 3] [--seconds 4] [--concurrency 16 64] [--delays 0 20]

The runtime takes a message in, stores it with its task, works it through queue, agent and ``anthropic`` SDK, stores the
reply and gives it as the answer to the same request. LiteLLM passes a call through as it is and keeps nothing. Beside
them a bare aiohttp server, which asks nobody. Each runs on one core; client and Messages API have another. The servers
take turns in each round, so that whatever else the machine does falls on all of them; figures are the rounds' medians,
ratios those of one round. First each connection has a request under way all the time (messages/s, p50, p99, CPU), then
requests come at random at 60 % of that rate (``open``; times count from when a request was due).

Then the gateway alone: how many messages a second it stores and acknowledges (202), with SQLite as the queue and with
Redis; and what a gateway and a worker hold resident. The last table holds it all against the goals.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sqlite3
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from loading.client import FROM_THE_MODEL, Load, Target, always, due_times, load, questions
from loading.litellm import PATH, calls, litellm
from loading.servers import HERE, Cores, Running, Server, free_port, messages_api, redis, running, runtime, scratch

PARTS = ("compare", "accept", "hold")
RUNTIME, LITELLM, ECHO = "runtime", "LiteLLM", "aiohttp echo"
OPEN_SHARE = 0.6
WARM_UP = 150
WARM_UP_SECONDS = 60.0
GOALS = {"litellm": 3.0, "p99": 60.0, "sqlite": 500.0, "redis": 1000.0, "gateway": 120.0, "worker": 180.0}


@dataclass(frozen=True)
class Contender:
    """A server that runs, and what it is sent."""

    name: str
    running: Running
    target: Target


@dataclass(frozen=True)
class Figures:
    """What one server did in one round."""

    full: Load
    open: Load
    cpu_ms: float
    rss_mb: float


@dataclass
class Findings:
    """Rounds by model's delay, requests at once and server; and what is held against the goals."""

    rounds: dict[tuple[float, int, str], list[Figures]] = field(default_factory=dict)
    goals: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def judge(self, what: str, value: float, goal: float, *, at_least: bool) -> None:
        """Hold one figure against its goal."""
        is_reached = value >= goal if at_least else value < goal
        self.goals.append((what, f"{value:.1f}", f"{'at least' if at_least else 'under'} {goal:g}", is_reached))


@contextlib.asynccontextmanager
async def contenders(delay: float, folder: Path, *, with_litellm: bool) -> AsyncIterator[list[Contender]]:
    """All servers, each on the measured core, before one Messages API."""
    cores, port, model = Cores.of_this_machine(), free_port(), messages_api(delay)
    ours = runtime("serve", model, f"sqlite:///{folder / f'messages-{delay:g}.db'}")
    bare = Server(ECHO, port, (sys.executable, HERE / "echo.py", str(port)), path="/readyz")
    servers = [
        (ECHO, bare, Target(port, "/v1/messages", questions())),
        (RUNTIME, ours, Target(ours.port, "/v1/messages", questions(), expected=FROM_THE_MODEL)),
    ]
    if with_litellm:
        proxy = litellm(model, folder)
        servers.append((LITELLM, proxy, Target(proxy.port, PATH, calls(), expected=b'"end_turn"')))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(model, cores.rest))
        started = [await stack.enter_async_context(running(server, cores.measured)) for _, server, _ in servers]
        yield [Contender(name, run, target) for run, (name, _, target) in zip(started, servers, strict=True)]


async def warm_up(target: Target) -> Load:
    """A server's first requests, which make it load what it needs."""
    return await load(target, 8, itertools.islice(always(WARM_UP_SECONDS), WARM_UP), WARM_UP_SECONDS)


async def measure(contender: Contender, connections: int, seconds: float, seed: int) -> Figures:
    """One server's turn: full load, then open load at a share of what it did."""
    before = contender.running.cpu_seconds
    full = await load(contender.target, connections, always(seconds), seconds)
    cpu = contender.running.cpu_seconds - before
    rate = max(1.0, full.per_second * OPEN_SHARE)
    opened = await load(contender.target, connections, due_times(rate, seconds, seed), seconds)
    return Figures(full, opened, cpu * 1000 / max(1, len(full.times)), contender.running.rss_mb)


async def compare(options: argparse.Namespace, findings: Findings) -> None:
    """All servers at each level, by turns."""
    for delay in options.delays:
        with scratch() as folder:
            async with contenders(delay, folder, with_litellm=not options.without_litellm) as all_of_them:
                for one in all_of_them:
                    await warm_up(one.target)
                for number, level, one in itertools.product(range(options.rounds), options.concurrency, all_of_them):
                    found = await measure(one, level, options.seconds, seed=number)
                    findings.rounds.setdefault((delay, level, one.name), []).append(found)


def show(findings: Findings) -> None:
    """Print the servers' figures."""
    print(
        "| model ms | at once | server | messages/s | p50 ms | p99 ms | CPU ms | open /s | p50 | p99 | RSS MB | wrong |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (delay, level, name), rounds in findings.rounds.items():
        full, opened = [one.full for one in rounds], [one.open for one in rounds]
        print(
            f"| {delay:g} | {level} | {name} | {statistics.median(one.per_second for one in full):.0f}"
            f" | {_quantiles(full)} | {statistics.median(one.cpu_ms for one in rounds):.2f}"
            f" | {statistics.median(one.per_second for one in opened):.0f} | {_quantiles(opened)}"
            f" | {rounds[-1].rss_mb:.0f} | {sum(len(one.wrong) for one in (*full, *opened))} |",
            flush=True,
        )
    for (delay, level, name), rounds in findings.rounds.items():
        wrong = [said for one in rounds for said in (*one.full.wrong, *one.open.wrong)]
        if wrong:
            print(f"\n{name}, {delay:g} ms, {level} at once: {wrong[0]}")


def _quantiles(loads: Sequence[Load]) -> str:
    return " | ".join(f"{statistics.median(one.quantile(share) for one in loads):.1f}" for share in (0.5, 0.99))


def judge_against_litellm(findings: Findings) -> None:
    """The ratios, and the latency."""
    for (delay, level, name), theirs in findings.rounds.items():
        if name != LITELLM:
            continue
        ours = findings.rounds[delay, level, RUNTIME]
        pairs = list(zip(ours, theirs, strict=True))
        ratios = sorted(one.full.per_second / max(1e-9, other.full.per_second) for one, other in pairs)
        what = f"times LiteLLM's requests/s, {level} at once, {delay:g} ms (rounds {ratios[0]:.1f} to {ratios[-1]:.1f})"
        findings.judge(what, statistics.median(ratios), GOALS["litellm"], at_least=True)
    for (delay, level, name), rounds in findings.rounds.items():
        if name == RUNTIME and delay == 0 and level == 16:  # noqa: PLR2004 - what the goal is about
            for kind, loads in {"full": [one.full for one in rounds], "open": [one.open for one in rounds]}.items():
                p99 = statistics.median(one.quantile(0.99) for one in loads)
                findings.judge(f"p99 ms at 16 at once, 0 ms, {kind} load", p99, GOALS["p99"], at_least=False)


async def accept(broker: Server | None, options: argparse.Namespace, findings: Findings) -> None:
    """How many messages a second a gateway takes in for good. Exits where one that it took isn't in the database."""
    cores, kind = Cores.of_this_machine(), "redis" if broker else "sqlite"
    environ = {"API_TIMEOUT_SECONDS": "0"}
    if broker:
        environ |= {"QUEUE_TYPE": "redis", "QUEUE_URL": f"redis://127.0.0.1:{broker.port}/0"}
    with scratch() as folder:
        gateway = runtime("gateway", messages_api(0), f"sqlite:///{folder / 'accepted.db'}", **environ)
        target = Target(gateway.port, "/v1/messages", questions(), status=202)
        loads: list[Load] = []
        async with contextlib.AsyncExitStack() as stack:
            if broker:
                await stack.enter_async_context(running(broker, cores.rest))
            run = await stack.enter_async_context(running(gateway, cores.measured))
            taken = await warm_up(target)
            for _ in range(options.rounds):
                before = run.cpu_seconds
                loads.append(await load(target, 64, always(options.seconds), options.seconds))
                cpu = (run.cpu_seconds - before) * 1000 / max(1, len(loads[-1].times))
        with contextlib.closing(sqlite3.connect(folder / "accepted.db")) as database:
            (stored,) = database.execute("SELECT count(*) FROM tasks").fetchone()
    answered = len(taken.times) + sum(len(one.times) for one in loads)
    if stored < answered or any(one.wrong for one in loads):
        sys.exit(f"{kind}: {answered} accepted, {stored} stored, refused: {[one.wrong[:1] for one in loads]}")
    rate = statistics.median(one.per_second for one in loads)
    print(f"| {kind} | {rate:.0f} | {_quantiles(loads)} | {cpu:.2f} |", flush=True)
    findings.judge(f"messages accepted a second, {kind} as the queue", rate, GOALS[kind], at_least=True)


async def hold(options: argparse.Namespace, findings: Findings) -> None:
    """What a gateway and a worker hold resident, each by itself, once they have served some messages."""
    model = messages_api(0)
    with scratch() as folder:
        database = f"sqlite:///{folder / 'shared.db'}"
        gateway, worker = runtime("gateway", model, database), runtime("worker", model, database)
        target = Target(gateway.port, "/v1/messages", questions(), expected=FROM_THE_MODEL)
        async with running(model), running(gateway) as gate, running(worker) as work:
            found = await load(target, 64, always(options.seconds), options.seconds)
            if found.wrong or not found.times:
                sys.exit(f"gateway and worker apart: {found.wrong[:1] or 'no answer'}")
            for role, run in {"gateway": gate, "worker": work}.items():
                findings.judge(f"MB resident, {role}", run.rss_mb, GOALS[role], at_least=False)


async def benchmark(options: argparse.Namespace) -> None:
    """What was asked for."""
    findings = Findings()
    if "compare" in options.parts:
        await compare(options, findings)
        show(findings)
        judge_against_litellm(findings)
    if "accept" in options.parts:
        print("\n| messages taken in, queue | /s | p50 ms | p99 ms | CPU ms |\n|---|---:|---:|---:|---:|")
        await accept(None, options, findings)
        with scratch() as folder:
            broker = redis(folder)
            if broker:
                await accept(broker, options, findings)
            else:
                print("| redis | install Debian's package redis-server | | | |")
    if "hold" in options.parts:
        await hold(options, findings)
    print("\n| | measured | goal | |\n|---|---:|---|---|")
    for what, value, goal, is_reached in findings.goals:
        print(f"| {what} | {value} | {goal} | {'reached' if is_reached else 'not reached'} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure of a round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64], metavar="N")
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 20.0], metavar="MS", help="of a model's call")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--without-litellm", action="store_true", help="don't install it; no ratios")
    options = parser.parse_args(argv)
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.rest})
    if cores.rest == cores.measured:
        print("There is one core only: the client takes its share of it.")
    uvloop.run(benchmark(options))


if __name__ == "__main__":
    main()
