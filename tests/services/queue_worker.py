"""A worker process for tests: the runtime's own worker, queue and turns, with an agent that takes its time.

It says on standard output which answers it stored. A message that reads "poison" fails every time.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from supportfleet_runtime.agent.turn import Answer, Source, Turn
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.observability.logs import configure_logging
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.factory import make_queue
from supportfleet_runtime.queue.settings import queue_address
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Worker, WorkerSettings
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import parse_database_url

LEASE = 3.0


class SlowAgent:
    """An agent that thinks for some 50 ms."""

    async def answer(self, turn: Turn, *, may_defer: bool = False) -> Answer:
        await asyncio.sleep(random.uniform(0.02, 0.08))
        if turn.text == "poison":
            raise ValueError
        return self.generic()

    def generic(self) -> Answer:
        return Answer("A reply.", "greeting", 1.0, Source.RULES)


class TellingTurns(Turns):
    """Turns that say what was stored, once it is."""

    async def store(self, answered: Answered) -> bool:
        stored = await super().store(answered)
        if stored:
            sys.stdout.write(f"{answered.lease.id}\n")
            sys.stdout.flush()
        return stored


async def main(database_url: str, kind: str, url: str, name: str) -> None:
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
    answering = Answering(SlowAgent(), turns, wakeup, metrics)
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
    asyncio.run(main(*sys.argv[1:5]))
