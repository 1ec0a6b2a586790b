"""100 poison messages among 10,000: do they end as dead letters, is nothing lost, and does anything else come late?

    python benchmarks/poison.py [--messages 10000] [--poison 100] [--rate 300]

Messages arrive at a fixed rate, whatever becomes of them, at the runtime's own intake, SQLite queue and worker, with an
agent that thinks for 10 ms and can't do the poison. The same without poison is run before and after it in the same
process: the 99th percentile of the others' time from arrival to stored answer is compared with those. Pauses between
tries are the runtime's. Exit code 1 where a message is lost, answered twice or late, or poison is no dead letter.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select

from supportfleet_runtime.agent.turn import Answer, Source, Turn
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.answering import Answering
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.records import Incoming
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.deadletters import DeadLetters
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Pauses, Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.schema import AGENT, messages, tasks
from supportfleet_runtime.storage.url import parse_database_url

SCOPE = "benchmark/poison"
POISON = "poison"
THINKS = 0.01
TRIES = 5
PATIENCE = 180.0


class Thinker:
    """An agent that thinks for a moment, and fails at poison every time."""

    async def answer(self, turn: Turn, **_: Any) -> Answer:
        """Think."""
        await asyncio.sleep(THINKS)
        if turn.text == POISON:
            raise ValueError
        return self.generic()

    def generic(self) -> Answer:
        """The only reply."""
        return Answer("A reply.", "greeting", 1.0, Source.RULES)


@dataclass
class Timed:
    """When messages arrived, and when their answers were stored, by task."""

    arrived: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)


class TimedTurns(Turns):
    """Turns that note when an answer is stored."""

    timed: Timed

    async def store(self, answered: Answered) -> bool:
        """Store, and note it."""
        held = await super().store(answered)
        if held:
            self.timed.stored[answered.lease.id] = time.perf_counter()
        return held


@dataclass(frozen=True)
class Result:
    """What became of the messages. ``p99`` is of those that are no poison, in seconds."""

    states: Counter[str]
    lost: int
    twice: int
    dead_tries: Counter[int]
    poison_dead: int
    p50: float
    p99: float


async def run(number: int, poison: int, rate: float, pauses: Pauses | None = None) -> Result:
    """Send ``number`` messages, ``poison`` of them among the others at random, and wait until all have ended."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(parse_database_url(f"sqlite:///{Path(folder) / 'poison.db'}"))
        try:
            await migrate(database)
            return await _run(database, number, poison, rate, pauses or Pauses())
        finally:
            await database.close()


async def _run(database: Database, number: int, poison: int, rate: float, pauses: Pauses) -> Result:
    bell, metrics, timed = Wakeup(), Metrics(), Timed()
    queue = SqlQueue(database, SCOPE, lease=30.0, now=utc_now)
    waiters = Waiters(Views(database, SCOPE).replies)
    turns = TimedTurns(database, queue, waiters, scope=SCOPE, window=lambda: 2, now=utc_now)
    turns.timed = timed
    answering = Answering(Thinker(), turns, bell, metrics)  # type: ignore[arg-type]  # all that it needs of an agent
    worker = Worker(
        queue=queue,
        handle=answering.handle,
        give_up=answering.give_up,
        wakeup=bell,
        settings=WorkerSettings(batch=100, visibility=60.0, lease=30.0, max_tries=TRIES, pauses=pauses),
        metrics=metrics,
    )
    working = asyncio.create_task(worker.run())
    bad = set(random.Random(number).sample(range(number), poison))  # noqa: S311 - the same ones in each run
    sound = await _send(Intake(database, queue, SCOPE, bell), number, bad, rate, timed)
    async with asyncio.timeout(PATIENCE):
        while len(timed.stored) < number:  # noqa: ASYNC110 - counted as they are stored
            await asyncio.sleep(0.05)
    await worker.stop(5)
    await working
    return await _result(database, timed, sound)


async def _send(intake: Intake, number: int, bad: set[int], rate: float, timed: Timed) -> set[str]:
    """Send at a fixed rate; the tasks that are no poison."""
    started = time.perf_counter()
    sending: set[asyncio.Task[Incoming]] = set()
    sound: set[str] = set()
    for index in range(number):
        await asyncio.sleep(max(0.0, started + index / rate - time.perf_counter()))
        at = utc_now()
        task, conversation = new_id("task", at), new_id("conv", at)
        text = POISON if index in bad else "hello"
        timed.arrived[task] = time.perf_counter()
        if index not in bad:
            sound.add(task)
        incoming = Incoming(task, new_id("msg", at), "c", conversation, is_new=True, text=text, received_at=at)
        sending.add(asyncio.create_task(intake.accept(incoming)))
    await asyncio.gather(*sending)
    return sound


async def _result(database: Database, timed: Timed, sound: set[str]) -> Result:
    rows = await database.read(lambda connection: connection.execute(select(tasks.c.id, tasks.c.state)).all())
    replied = select(messages.c.conversation_id).where(messages.c.role == AGENT)
    replies = await database.read(lambda connection: Counter(connection.execute(replied).scalars()))
    letters = await DeadLetters(database, SCOPE, now=utc_now).latest(len(timed.arrived))
    times = sorted(timed.stored[task] - timed.arrived[task] for task in sound)
    return Result(
        states=Counter(row.state for row in rows),
        lost=len(timed.arrived) - len(replies),
        twice=sum(count > 1 for count in replies.values()),
        dead_tries=Counter(letter.tries for letter in letters),
        poison_dead=sum(letter.task_id not in sound for letter in letters),
        p50=times[len(times) // 2],
        p99=times[int(len(times) * 0.99)],
    )


def problems(found: Result, number: int, poison: int, calm: float) -> list[str]:
    """What is wrong with a run, where the 99th percentile without poison was ``calm``. Pure.

    Half a second is for a machine that does something else as well; a message behind poison would wait for longer.
    """
    wrong = {
        "not every message is done, and every poison dead": found.states != Counter(done=number - poison, dead=poison),
        "messages have no reply": found.lost,
        "messages have two replies": found.twice,
        "the dead letters are not the poison": found.poison_dead != poison,
        f"poison was not tried {TRIES} times": found.dead_tries != Counter({TRIES: poison}),
        "the other messages are late": found.p99 > 3 * calm + 0.5,
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


def say_nothing() -> None:
    """Log nothing: hundreds of failures are expected, and each would take longer to be told than to happen."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run it three times and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--poison", type=int, default=100)
    parser.add_argument("--rate", type=float, default=300.0)
    given = parser.parse_args(argv)
    say_nothing()
    print("| messages | poison | done | dead | tries of the dead | lost | answered twice | p50 ms | p99 ms |")
    print("|---------:|-------:|-----:|-----:|-------------------|-----:|---------------:|-------:|-------:|")
    results = []
    for poison in (0, given.poison, 0):
        found = asyncio.run(run(given.messages, poison, given.rate))
        results.append((poison, found))
        tries = ", ".join(f"{count} x {number}" for number, count in found.dead_tries.items()) or "-"
        print(
            f"| {given.messages:8} | {poison:6} | {found.states['done']:4} | {found.states['dead']:4} | {tries:17} "
            f"| {found.lost:4} | {found.twice:14} | {found.p50 * 1000:6.1f} | {found.p99 * 1000:6.1f} |",
            flush=True,
        )
    calm = max(found.p99 for poison, found in results if not poison)
    if wrong := [name for poison, found in results for name in problems(found, given.messages, poison, calm)]:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
