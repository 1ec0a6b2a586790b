"""Mirrored messages: copies of real ones that a proxy sends to a canary, whose answers it throws away.

The agent works them as any other, so that its figures can be compared; nothing lasts of them. They are not stored, so
they have no task, are not queued and can't be retried; no person is called, no question is left open, and tools change
nothing. What the agent is shown of a continued conversation is what the database holds when the copy arrives. The
original is on its way at the same time, so turns that have no reply yet are left out: one of them is this very message.

The counterpart of this is cost: a language model is paid for copies too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supportfleet_runtime.agent.agent import Agent
from supportfleet_runtime.agent.rules import Pending
from supportfleet_runtime.agent.turn import Turn
from supportfleet_runtime.conversations.records import ConversationRecord, Incoming, Reply
from supportfleet_runtime.conversations.turns import exchanges, reply_of
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.observability.metrics import Metrics


class Mirrored:
    """Answers copies; never more of them at once than ``limit``, so that they don't starve what is real."""

    def __init__(self, agent: Agent, views: Views, metrics: Metrics, *, window: Callable[[], int], limit: int) -> None:
        self._agent = agent
        self._views = views
        self._metrics = metrics
        self._window = window
        self._slots = asyncio.Semaphore(limit)

    async def answer(self, incoming: Incoming) -> Reply:
        """The reply that the customer would get; raises ``NotFoundError`` where the conversation isn't theirs."""
        async with self._slots:
            turn = await self._turn(incoming)
            answer = await self._agent.answer(turn)
        self._metrics.count_answer(answer.fallback_level, escalated=answer.escalate and not turn.escalated)
        return reply_of(answer, turn)

    async def _turn(self, incoming: Incoming) -> Turn:
        if incoming.is_new:
            return _turn(incoming)
        found = await self._views.conversation(incoming.conversation_id, incoming.customer_id, max(1, self._window()))
        return _turn(incoming, found, await self._views.pending(incoming.conversation_id))


def _turn(incoming: Incoming, found: ConversationRecord | None = None, pending: Pending | None = None) -> Turn:
    said = {(message.turn, message.role): message.text for message in found.messages} if found else {}
    return Turn(
        task_id=incoming.task_id,
        conversation_id=incoming.conversation_id,
        customer_id=incoming.customer_id,
        number=max((turn for turn, _ in said), default=0) + 1,
        text=incoming.text,
        received_at=incoming.received_at,
        history=tuple(one for one in exchanges(said) if one.reply is not None),
        pending=pending,
        escalated=found.escalated if found else False,
        is_copy=True,
    )
