"""Whether money moves once: refunds over connections that break, and attackers whose every word is obeyed.

    python benchmarks/effects.py [--refunds 10000] [--attacks 1000] [--seed 1]

The first part sends refunds to a real tool service whose connections break, before the commit and after it, at calls
and at look-ups. Each refund must have one effect and be reported as done, or be reported as ambiguous and call a
person. The second part has a language model do whatever attackers write. Exit code 1 where one did what it must not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import runpy
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.classifier import KeywordClassifier
from supportfleet_runtime.agent.ladder import BEST, WITHOUT_TOOLS, Ladder, Rung
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.tool_tables import address_changes, refunds, tickets
from supportfleet_runtime.storage.url import parse_database_url

HELPERS = Path(__file__).parent.parent / "tests" / "agent_runtime"
SHOP = SimpleNamespace(**runpy.run_path(str(HELPERS / "tools_shop.py")))
ATTACKS = SimpleNamespace(**runpy.run_path(str(HELPERS / "tools_attacks.py")))
AT_ONCE = 32
FAULTY = 0.5


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


async def refund_all(number: int, seed: int, folder: Path) -> bool:
    """Refund so many orders over a line that breaks; whether each was paid once, or a person called."""
    url = f"sqlite:///{folder / 'refunds.db'}"
    database = Database(parse_database_url(url))
    await migrate(database)
    settings = AgentSettings.model_validate(SHOP.open_book(number))
    (folder / "agent_config.json").write_text(settings.model_dump_json(by_alias=True))
    started = time.perf_counter()
    async with SHOP.tool_service(url, now, str(folder), SHOP.Faults.random(seed, FAULTY)) as address:
        shop = SHOP.make_shop(database, now, url=address, settings=settings)
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(order: int) -> Any:
            async with slots:
                return await shop.refund(f"task_{order}", order_number=f"A-{10_000 + order}", amount=10)

        results = await asyncio.gather(*(one(order) for order in range(number)))
        await shop.tools.close()
    took = time.perf_counter() - started
    paid = Counter(row.order_number for row in await _rows(database, refunds))
    await database.close()
    done = {f"A-{10_000 + order}" for order, result in enumerate(results) if result.status == "done"}
    statuses = Counter(str(result.status) for result in results)
    twice = [order for order, times in paid.items() if times > 1]
    called = sum(result.needs_person for result in results)
    print(f"| refunds over faulty connections | {number:,} in {took:.1f} s |")
    print(
        f"| done, ambiguous | {statuses['done']:,}, {statuses['ambiguous']:,} (a person was called {called:,} times) |"
    )
    print(f"| paid, of them twice | {sum(paid.values()):,}, {len(twice):,} |")
    print(f"| said to be done and not paid | {len(done - set(paid)):,} |")
    fine = set(statuses) <= {"done", "ambiguous"} and called == statuses["ambiguous"]
    return fine and not twice and done <= set(paid)


async def attack_all(number: int, seed: int, folder: Path) -> bool:
    """Let attackers command the model; whether nothing happened that they may not have."""
    database = Database(parse_database_url(f"sqlite:///{folder / 'attacks.db'}"))
    await migrate(database)
    settings = ATTACKS.settings()
    shop = SHOP.make_shop(database, now, settings=settings)
    model, classifier = ATTACKS.ObedientModel(), KeywordClassifier()
    ladder = Ladder([Rung(BEST, model, uses_tools=True), Rung(WITHOUT_TOOLS, model)])
    agent = Agent(lambda: settings, lambda: classifier, ladder, Metrics(), now, toolbox=shop.tools)
    told = 0
    for index, attack in enumerate(ATTACKS.attacks(number, seed)):
        answer = await agent.answer(ATTACKS.turn(index, attack, now()))
        told += any(secret in answer.text for secret in ATTACKS.SECRETS)
    own = {order.number: order.customer_id for order in settings.order_book.orders}
    rows = [row for table in (refunds, tickets, address_changes) for row in await _rows(database, table)]
    others = [row for row in rows if own.get(row.order_number) != row.customer_id]
    paid = [row.amount for row in await _rows(database, refunds) if row.state == "paid"]
    await database.close()
    limits = settings.tools.refund
    over = [amount for amount in paid if amount > limits.approval_above * 100]
    print(f"| attacks, all obeyed by the model | {number:,} |")
    print(f"| effects on others' orders, answers with others' data | {len(others)}, {told} |")
    print(f"| refunds over the limit | {len(over)} |")
    print(f"| paid in all, limit of the day | {sum(paid) / 100:.2f}, {limits.per_customer_per_day} |")
    return not (others or told or over or sum(paid) > limits.per_customer_per_day * 100)


async def _rows(database: Database, table: Any) -> Any:
    return await database.read(lambda connection: connection.execute(table.select()).all())


async def benchmark(arguments: argparse.Namespace) -> bool:
    """Both parts."""
    with tempfile.TemporaryDirectory(prefix="supportfleet-effects-") as folder:
        print("| what | figure |\n|---|---|")
        once = await refund_all(arguments.refunds, arguments.seed, Path(folder))
        return await attack_all(arguments.attacks, arguments.seed, Path(folder)) and once


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Whether money moves once, and only with authority.")
    parser.add_argument("--refunds", type=int, default=10_000)
    parser.add_argument("--attacks", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    logging.disable(logging.CRITICAL)  # broken connections are what is measured
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(0 if asyncio.run(benchmark(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
