"""Whether money moves once: refunds over connections that break, and attackers whose every word is obeyed.

    python benchmarks/effects.py [--refunds 10000] [--attacks 1000] [--seed 1]

The first two parts send messages that ask for refunds through the runtime's own intake, queue and worker to a real tool
service. In the first the service commits every refund and then drops the connection; half of the look-ups that follow
break, too. In the second the connections break, before the commit and after it, at half of all calls and look-ups. Each
refund must have one effect and be known as done, or be known as ambiguous and have called a person, who is told so. The
last part has a language model do whatever attackers write. Exit code 1 where one did what it must not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import runpy
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import structlog

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.classifier import KeywordClassifier
from supportfleet_runtime.agent.ladder import BEST, WITHOUT_TOOLS, Ladder, Rung
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.records import Incoming
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.schema import OPEN, escalations
from supportfleet_runtime.storage.tool_tables import AMBIGUOUS, DONE, address_changes, refunds, tickets
from supportfleet_runtime.storage.url import parse_database_url

HELPERS = Path(__file__).parent.parent / "tests" / "agent_runtime"
SHOP = SimpleNamespace(**runpy.run_path(str(HELPERS / "tools_shop.py")))
ATTACKS = SimpleNamespace(**runpy.run_path(str(HELPERS / "tools_attacks.py")))
DESK = runpy.run_path(str(HELPERS / "test_conversations.py"))["Desk"]
AT_ONCE: Final = 32
FAULTY: Final = 0.5
PATIENCE: Final = 1500.0
TOOL_SECONDS: Final = 20.0
"""Longer than the runtime's 5 s: a machine that stands still for a while is not what is measured."""
ONE_EFFECT, ESCALATED = "one effect, known as done", "ambiguous, a person called"
NOT_ASKED: Final = "never asked for"
"""No harm, but no proof either: the line to the service did not come about."""
ALLOWED: Final = frozenset({ONE_EFFECT, ESCALATED})


@dataclass(frozen=True)
class Ended:
    """What became of a refund: how often it was paid, what the agent's ledger says, and what people were called for."""

    paid: int
    state: str | None
    called: tuple[str, ...]
    """Of each open call, how the refund ended that it names."""


def judge(ended: Ended) -> str:
    """Whether that is one of the two ends that a refund may have, or how it is not. Pure."""
    if ended.state == DONE and ended.paid == 1 and not ended.called:
        return ONE_EFFECT
    if ended.state == AMBIGUOUS and ended.paid <= 1 and ended.called == (AMBIGUOUS,):
        return ESCALATED
    if ended == Ended(0, None, ()):
        return NOT_ASKED
    return f"WRONG: paid {ended.paid} times, {ended.state or 'not in the ledger'}, {len(ended.called)} people called"


async def refund_all(number: int, faults: Any) -> Counter[str]:
    """Ask for so many refunds, each of a customer of their own, over lines with ``faults``; how they ended."""
    with tempfile.TemporaryDirectory(prefix="supportfleet-effects-") as folder:
        url = f"sqlite:///{folder}/refunds.db"
        database = Database(parse_database_url(url))
        try:
            await migrate(database)
            settings = _settings(number)
            (Path(folder) / "agent_config.json").write_text(settings.model_dump_json(by_alias=True))
            async with SHOP.tool_service(url, utc_now, folder, faults) as address:
                shop = SHOP.make_shop(database, utc_now, url=address, settings=settings, timeout=TOOL_SECONDS)
                return Counter(map(judge, await _refund(shop, settings)))
        finally:
            await database.close()


async def _refund(shop: Any, settings: AgentSettings) -> list[Ended]:
    desk, orders = DESK(shop.database, utc_now, SHOP.SCOPE), settings.order_book.orders
    said = [desk.message(_wish(order.number), customer=order.customer_id) for order in orders]
    async with _working(desk, _agent(shop, settings)) as say, asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(say, said))
    await shop.tools.close()
    return await _ended(shop, said, [order.number for order in orders])


def _settings(number: int) -> AgentSettings:
    book = SHOP.open_book(number)
    for index, order in enumerate(book["orderBook"]["orders"]):
        order["customerId"] = f"cust-{index}"
    return AgentSettings.model_validate({**book, "rules": {"intents": []}})


def _wish(order: str) -> str:
    return f'CALL refund {{"order_number": "{order}", "amount": 10, "reason": "too small"}}'


def _agent(shop: Any, settings: AgentSettings) -> Agent:
    model, classifier = ATTACKS.ObedientModel(), KeywordClassifier()
    ladder = Ladder([Rung(BEST, model, uses_tools=True), Rung(WITHOUT_TOOLS, model)])
    return Agent(lambda: settings, lambda: classifier, ladder, Metrics(), utc_now, toolbox=shop.tools)


@contextlib.asynccontextmanager
async def _working(desk: Any, agent: Agent) -> AsyncIterator[Callable[[Incoming], Awaitable[None]]]:
    """A worker of the desk's queue; what sends a message and waits for its stored reply, some at once."""
    answering = Answering(agent, desk.turns, desk.wakeup, Metrics())
    worker = Worker(
        queue=desk.queue,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=desk.wakeup,
        settings=WorkerSettings(batch=AT_ONCE, visibility=60.0, lease=30.0, max_tries=5),
        metrics=Metrics(),
    )
    slots = asyncio.Semaphore(AT_ONCE)

    async def say(incoming: Incoming) -> None:
        async with slots, desk.waiters.waiting(incoming.task_id) as reply:
            await desk.intake.accept(incoming)
            await reply

    running = asyncio.create_task(worker.run())
    try:
        yield say
    finally:
        await worker.stop(5)
        await running


async def _ended(shop: Any, said: Sequence[Incoming], orders: Sequence[str]) -> list[Ended]:
    """What is stored of each refund."""
    paid = Counter(row.order_number for row in await _rows(shop.database, refunds.select()))
    called = defaultdict(list)
    for row in await _rows(shop.database, escalations.select().where(escalations.c.state == OPEN)):
        called[row.conversation_id].append(",".join(one["outcome"] for one in row.attempts if one["tool"] == "refund"))
    states = await shop.states()
    return [
        Ended(paid[order], states.get(incoming.task_id), tuple(called[incoming.conversation_id]))
        for incoming, order in zip(said, orders, strict=True)
    ]


async def attack_all(number: int, seed: int, folder: Path) -> bool:
    """Let attackers command the model; whether nothing happened that they may not have."""
    database = Database(parse_database_url(f"sqlite:///{folder / 'attacks.db'}"))
    await migrate(database)
    settings = ATTACKS.settings()
    agent = _agent(SHOP.make_shop(database, utc_now, settings=settings), settings)
    told = 0
    for index, attack in enumerate(ATTACKS.attacks(number, seed)):
        answer = await agent.answer(ATTACKS.turn(index, attack, utc_now()))
        told += any(secret in answer.text for secret in ATTACKS.SECRETS)
    own = {order.number: order.customer_id for order in settings.order_book.orders}
    rows = [row for table in (refunds, tickets, address_changes) for row in await _rows(database, table.select())]
    others = [row for row in rows if own.get(row.order_number) != row.customer_id]
    paid = [row.amount for row in await _rows(database, refunds.select()) if row.state == "paid"]
    await database.close()
    limits = settings.tools.refund
    over = [amount for amount in paid if amount > limits.approval_above * 100]
    print(f"| attacks, all obeyed by the model | {number:,} |")
    print(f"| effects on others' orders, answers with others' data | {len(others)}, {told} |")
    print(f"| refunds over the limit | {len(over)} |")
    print(f"| paid in all, limit of the day | {sum(paid) / 100:.2f}, {limits.per_customer_per_day} |")
    return not (others or told or over or sum(paid) > limits.per_customer_per_day * 100)


async def _rows(database: Database, query: Any) -> Any:
    return await database.read(lambda connection: connection.execute(query).all())


async def benchmark(wanted: int, attacks: int, seed: int) -> bool:
    """All parts."""
    print("| what | figure |\n|---|---|", flush=True)
    lines = {
        "refunds, each committed and its connection dropped": SHOP.Faults.after_commit(seed, FAULTY),
        "refunds over connections that break at random": SHOP.Faults.random(seed, FAULTY),
    }
    wrong = 0
    for name, faults in lines.items():
        started = time.perf_counter()
        verdicts = await refund_all(wanted, faults)
        print(f"| {name} | {wanted:,} in {time.perf_counter() - started:.0f} s |")
        for verdict, times in verdicts.most_common():
            print(f"| - {verdict} | {times:,} |", flush=True)
        wrong += wanted - sum(verdicts[allowed] for allowed in ALLOWED)
    with tempfile.TemporaryDirectory(prefix="supportfleet-effects-") as folder:
        return await attack_all(attacks, seed, Path(folder)) and not wrong


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Whether money moves once, and only with authority.")
    parser.add_argument("--refunds", type=int, default=10_000)
    parser.add_argument("--attacks", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    logging.disable(logging.CRITICAL)  # broken connections are what is measured
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    given = parser.parse_args()
    sys.exit(0 if asyncio.run(benchmark(given.refunds, given.attacks, given.seed)) else 1)


if __name__ == "__main__":
    main()
