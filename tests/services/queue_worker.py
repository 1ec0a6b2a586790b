"""A worker process for tests: the runtime's own worker, queue, turns and tools, with an agent that takes its time.

It says on standard output which answers it stored, and by a file in its folder which refund it is in the middle of. A
message that reads "poison" fails every time; one that reads "refund" and an order's number has that order paid back, by
a tool service and through the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from supportfleet_runtime.agent.breaker import CircuitBreaker
from supportfleet_runtime.agent.settings import ToolSettings
from supportfleet_runtime.agent.toolbox import Authority, ToolSession
from supportfleet_runtime.agent.turn import Answer, Source, Turn
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.settings import queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import parse_database_url
from supportfleet_runtime.tools.client import HttpTools
from supportfleet_runtime.tools.ledger import Ledger
from supportfleet_runtime.tools.toolbox import Tools

LEASE = 3.0
REFUND = "refund "
AMOUNT = 10


class SlowAgent:
    """An agent that thinks for some 50 ms, and as long again over what a tool told it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def answer(self, turn: Turn, *, may_defer: bool = False) -> Answer:
        await think()
        if turn.text == "poison":
            raise ValueError
        return await self._refund(turn) if turn.text.startswith(REFUND) else self.generic()

    async def _refund(self, turn: Turn) -> Answer:
        """As the runtime's agent does: learn what an earlier attempt did, then ask, once more where it was asked."""
        session = ToolSession(self._tools, Authority(turn.customer_id, turn.task_id, turn.conversation_id))
        if turn.is_retry:
            await session.recall(within=2)
        order = turn.text.removeprefix(REFUND)
        asked = {"order_number": order, "amount": AMOUNT, "reason": "It broke."}
        try:
            with marked(f"{os.getpid()}.{order}.refunding"):
                result = await session.call("refund", asked, within=10)
        except ProviderError:
            return self.generic()
        await think()
        return Answer(result.message, "refund", 1.0, Source.MODEL, escalate=session.needs_person)

    def generic(self) -> Answer:
        return Answer("A reply.", "greeting", 1.0, Source.RULES)


@contextlib.contextmanager
def marked(name: str) -> Iterator[None]:
    """Have a file there for as long as this lasts."""
    mark = Path(name)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


async def think() -> None:
    await asyncio.sleep(random.uniform(0.02, 0.08))


class TellingTurns(Turns):
    """Turns that say what was stored, once it is."""

    async def store(self, answered: Answered) -> bool:
        stored = await super().store(answered)
        if stored:
            sys.stdout.write(f"{answered.lease.id}\n")
            sys.stdout.flush()
        return stored


async def main(database_url: str, kind: str, url: str, name: str, tools_url: str, tools_key: str) -> None:
    configure_logging("info")
    database = Database(parse_database_url(database_url), pool=4)
    wakeup, metrics = Wakeup(), Metrics()
    address = queue_address(kind, url or None)
    consumer = f"worker-{os.getpid()}"
    queue = make_queue(
        database, name, scope=name, address=address, consumer=consumer, lease=LEASE, wakeup=wakeup, now=utc_now
    )
    turns = TellingTurns(
        database, queue, Waiters(Views(database, name).replies), scope=name, window=lambda: 2, now=utc_now
    )
    tools = Tools(
        backend=HttpTools(tools_url, tools_key, CircuitBreaker(time.monotonic)),
        ledger=Ledger(database, name, utc_now),
        settings=ToolSettings,
        metrics=metrics,
        scope=name,
        timeout=5,
    )
    answering = Answering(SlowAgent(tools), turns, wakeup, metrics)
    worker = Worker(
        queue=queue,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=wakeup,
        settings=WorkerSettings(batch=8, visibility=20.0, lease=LEASE, max_tries=5),
        metrics=metrics,
    )

    def hear(kind: str, subject: str) -> None:
        if kind == signals.WORK and subject == name:
            wakeup.notify()

    await asyncio.gather(worker.run(), queue.run(), signals.listen(database.url, 5, hear))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
