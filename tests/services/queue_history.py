"""What happened to messages while things broke, and the checker that says whether it was right.

The history is made of what was acknowledged to customers, what the database holds in the end, what each worker said it
stored, and what the tool service and the agent's ledger say of refunds. The checker knows nothing of queues.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, select

from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import AGENT, messages, tasks


@dataclass(frozen=True)
class Accepted:
    """A message whose customer was told that it is taken."""

    task: str
    conversation: str


@dataclass(frozen=True)
class Ended:
    """A task as the database has it. ``replied`` orders replies by when they were stored; ``None``: there is none."""

    task: str
    conversation: str
    turn: int
    state: str
    replied: float | None


@dataclass(frozen=True)
class Refunds:
    """What was asked to be paid back, and what came of it."""

    asked: Mapping[str, str] = field(default_factory=dict)
    """The order that a task's message asks about, accepted or not."""
    paid: Sequence[str] = ()
    """The order of each payment."""
    ledger: Mapping[str, str] = field(default_factory=dict)
    """The state of a task's refund, as the agent wrote it down."""


@dataclass(frozen=True)
class History:
    accepted: Sequence[Accepted]
    ended: Sequence[Ended]
    stored: Sequence[str]
    """Tasks whose answers workers said they stored, once for each time."""
    poison: Collection[str] = ()
    """Tasks that no worker can do."""
    refunds: Refunds = field(default_factory=Refunds)


def faults(history: History) -> list[str]:
    """Everything that is wrong; nothing, where all is well."""
    return [
        *_lost(history),
        *_twice(history),
        *_out_of_order(history),
        *_misjudged(history),
        *_wrongly_paid(history.refunds),
    ]


async def read_ended(database: Database) -> Sequence[Ended]:
    """All tasks as the database has them."""
    reply = and_(
        messages.c.conversation_id == tasks.c.conversation_id, messages.c.turn == tasks.c.turn, messages.c.role == AGENT
    )
    columns = (tasks.c.id, tasks.c.conversation_id, tasks.c.turn, tasks.c.state, messages.c.created_at)
    query = select(*columns).outerjoin(messages, reply)
    rows = await database.read(lambda connection: connection.execute(query).all())
    return [Ended(*row[:4], row.created_at.timestamp() if row.created_at else None) for row in rows]


def _lost(history: History) -> list[str]:
    ended = {one.task: one for one in history.ended}
    found = []
    for accepted in history.accepted:
        one = ended.get(accepted.task)
        if one is None:
            found.append(f"{accepted.task} was accepted, and is unknown")
        elif one.state not in {"done", "dead"} or one.replied is None:
            found.append(f"{accepted.task} was accepted, and is {one.state} without a reply")
    return found


def _twice(history: History) -> list[str]:
    ids = Counter(one.task for one in history.ended)
    turns = Counter((one.conversation, one.turn) for one in history.ended)
    stored = Counter(history.stored)
    return [
        *(f"{task} is there {number} times" for task, number in ids.items() if number > 1),
        *(f"turn {turn} has {number} replies" for turn, number in turns.items() if number > 1),
        *(f"{task} was answered {number} times" for task, number in stored.items() if number > 1),
    ]


def _out_of_order(history: History) -> list[str]:
    turns: defaultdict[str, list[Ended]] = defaultdict(list)
    for one in history.ended:
        if one.replied is not None:
            turns[one.conversation].append(one)
    found = []
    for conversation, replies in turns.items():
        in_turn = sorted(replies, key=lambda one: one.turn)
        times = [one.replied or 0.0 for one in in_turn]
        if times != sorted(times):
            found.append(f"{conversation} was answered out of order")
    return found


def _misjudged(history: History) -> list[str]:
    found = []
    for one in history.ended:
        if one.task in history.poison and one.state != "dead":
            found.append(f"{one.task} is poison, and {one.state}")
        if one.task not in history.poison and one.state == "dead":
            found.append(f"{one.task} is sound, and was given up")
    return found


def _wrongly_paid(refunds: Refunds) -> list[str]:
    """Paid twice, unasked or unknown to the ledger; or only said to be paid. What is ambiguous may be either."""
    times = Counter(refunds.paid)
    found = [f"{order} was paid back {number} times" for order, number in times.items() if number > 1]
    found += [f"{order} was paid back, and nobody asked" for order in times.keys() - set(refunds.asked.values())]
    for task, order in refunds.asked.items():
        state = refunds.ledger.get(task)
        if order in times and state not in {"done", "ambiguous"}:
            found.append(f"{order} was paid back, and {task} says {state}")
        if order not in times and state == "done":
            found.append(f"{order} was not paid back, and {task} says it was")
    return found
