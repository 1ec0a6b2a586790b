"""What a worker does with a lease: read the turn, have the agent answer it, store the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.turn import Answer, Turn
from supportfleet_runtime.conversations.drafts import Drafts
from supportfleet_runtime.conversations.turns import Answered, Turns
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.tracing import Field, in_hand, span
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.wakeup import Wakeup

PROMPT_SECONDS: Final = 1.0


class Answering:
    """The worker's handler."""

    def __init__(
        self,
        agent: Agent,
        turns: Turns,
        wakeup: Wakeup,
        metrics: Metrics,
        long_bell: Wakeup | None = None,
        *,
        drafts: Drafts | None = None,
    ) -> None:
        self._agent = agent
        self._turns = turns
        self._wakeup = wakeup
        self._metrics = metrics
        self._long_bell = long_bell
        self._drafts = drafts or Drafts()

    async def handle(self, lease: Lease) -> None:
        """Answer a turn."""
        with span("load"):
            turn = await self._turns.load(lease.id)
        with self._drafts.writing(turn) as draft:
            turn = replace(turn, is_retry=_may_be_retry(lease, turn), draft=draft)
            answer = await self._agent.answer(turn, may_defer=True)
            working = in_hand()
            working.note(Field.INTENT, answer.intent)
            working.note(Field.SOURCE, answer.source.value)
            working.note(Field.LEVEL, answer.fallback_level)
            await self._store(lease, turn, answer, dead=False)

    async def give_up(self, lease: Lease) -> None:
        """End a turn that can't be answered: the customer gets the generic reply."""
        turn = await self._turns.load(lease.id)
        await self._store(lease, turn, self._agent.generic(), dead=True)

    async def _store(self, lease: Lease, turn: Turn, answer: Answer, *, dead: bool) -> None:
        with span("store") as storing:
            held = await self._turns.store(Answered(lease, turn, answer, dead=dead))
            storing.note(Field.STORED, held)
        if turn.has_later:
            self._wakeup.notify()  # the next turn waited for this one
        if not held:
            self._metrics.tasks.labels(outcome="lost").inc()
            return
        if answer.later:
            self._metrics.tasks.labels(outcome="deferred").inc()
            if self._long_bell:
                self._long_bell.notify()
            return
        self._metrics.tasks.labels(outcome="dead" if dead else "done").inc()
        self._metrics.count_answer(answer.fallback_level, escalated=answer.escalate and not turn.escalated)


def _may_be_retry(lease: Lease, turn: Turn) -> bool:
    """Whether there may have been an earlier attempt.

    One that was given back, or a dead letter that is replayed, doesn't count as a try; but it took its time.
    """
    return lease.tries > 1 or (lease.leased_at - turn.received_at).total_seconds() > PROMPT_SECONDS
