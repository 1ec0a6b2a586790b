"""What the long lane's worker does with a lease: the work of the intent, then the answer.

An intent may have work of its own (``works``), whose result the task keeps beside the reply; any other intent that is
configured as long is just answered, without holding up those that are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.turn import Answer, Turn
from supportfleet_runtime.conversations.drafts import Drafts
from supportfleet_runtime.conversations.history import Report
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.conversations.watching import Watching
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.long_lane import LongLane
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.wakeup import Wakeup

Work = Callable[[str, Report], Awaitable[Any]]
"""What is done for a customer (by id); the result becomes JSON."""


class LongAnswering:
    """The long lane's handler. ``ended`` is rung when a task has ended."""

    def __init__(
        self,
        agent: Agent,
        turns: Turns,
        lane: LongLane,
        *,
        works: Mapping[str, Work],
        ended: Wakeup,
        metrics: Metrics,
        watching: Watching | None = None,
        drafts: Drafts | None = None,
    ) -> None:
        self._agent = agent
        self._turns = turns
        self._lane = lane
        self._works = works
        self._ended = ended
        self._metrics = metrics
        self._watching = watching
        self._drafts = drafts or Drafts()

    async def handle(self, lease: Lease) -> None:
        """Do the work of a turn, and answer it."""
        turn = await self._turns.load(lease.id)
        question = await self._lane.question(lease)
        with self._drafts.writing(turn) as draft:
            turn = replace(turn, pending=Pending(*question) if question else None, is_retry=True, draft=draft)
            answer = await self._agent.answer(turn)
            work = self._works.get(answer.intent)
            if work is not None:
                result = await work(turn.customer_id, lambda progress: self._report(lease, turn, progress))
                await self._lane.keep(lease, orjson.dumps(result).decode())
            await self._store(lease, turn, answer, dead=False)

    async def give_up(self, lease: Lease) -> None:
        """End a turn that can't be answered: the customer gets the generic reply."""
        turn = await self._turns.load(lease.id)
        await self._store(lease, turn, self._agent.generic(), dead=True)

    async def _report(self, lease: Lease, turn: Turn, progress: int) -> None:
        await self._lane.report(lease, progress)
        if self._watching:
            self._watching.changed([turn.conversation_id])

    async def _store(self, lease: Lease, turn: Turn, answer: Answer, *, dead: bool) -> None:
        held = await self._turns.store(Answered(lease, turn, answer, dead=dead))
        self._metrics.tasks.labels(outcome=("dead" if dead else "done") if held else "lost").inc()
        if held:
            self._ended.notify()
            self._metrics.count_answer(answer.fallback_level, escalated=answer.escalate and not turn.escalated)
