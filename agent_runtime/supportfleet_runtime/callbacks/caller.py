"""The worker of the outbox: one attempt for each lease, with pauses that grow from seconds to hours.

The worker owns the retries; a receiver that says it is gone, and an address that may not be called, get none. What
failed for good stays as it is, for whoever looks at the task, and is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from supportfleet_runtime.callbacks.mail import Mails
from supportfleet_runtime.callbacks.outbox import Call, Outbox
from supportfleet_runtime.callbacks.settings import CallbackSettings, Kind
from supportfleet_runtime.callbacks.webhook import Webhooks
from supportfleet_runtime.conversations.records import TaskRecord
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.errors import DeliveryError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.queue.port import Lease
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.queue.worker import Pauses, Worker, WorkerSettings
from supportfleet_runtime.storage.database import Database

AT_ONCE: Final = 16
ATTEMPT_SECONDS: Final = 30.0
"""Shorter than it takes to be given up by the worker: an attempt ends by its own reason."""
PAUSES: Final = Pauses(first=5.0, longest=6 * 3600.0, growth=4.0)
"""5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 6 h: with eight tries, a day's half."""

Render = Callable[[TaskRecord], dict[str, Any]]


class Caller:
    """Makes the callbacks of one agent (``scope``) until it is stopped; does nothing where none are configured."""

    def __init__(
        self,
        settings: CallbackSettings,
        database: Database,
        scope: str,
        views: Views,
        *,
        render: Render,
        company: Callable[[], str],
        bell: Wakeup,
        lease: float,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._outbox = Outbox(database, scope, settings.kinds, lease=lease, now=now)
        self._views = views
        self._render = render
        self._metrics = metrics
        self._max_tries = settings.max_tries
        self._is_needed = bool(settings.kinds)
        self._webhooks = Webhooks(settings.secrets, settings.allowed, now=now) if settings.secrets else None
        self._mails = (
            Mails(settings.mail_server, settings.sender, lambda: f"Your request to {company()}", now=now)
            if settings.mail_server and settings.sender
            else None
        )
        self._worker = Worker(
            queue=self._outbox,
            handle=self.handle,
            give_up=self.give_up,
            wakeup=bell,
            settings=WorkerSettings(
                AT_ONCE, 2 * ATTEMPT_SECONDS, lease, settings.max_tries, kind="callback", pauses=PAUSES
            ),
            metrics=metrics,
            retried=_counted_already,
        )

    async def run(self) -> None:
        """Make callbacks until ``stop``."""
        if self._is_needed:
            await self._worker.run()

    async def stop(self, grace: float) -> None:
        """Take no more, let attempts end within ``grace`` seconds, and leave the rest to others."""
        await self._worker.stop(grace)
        if self._webhooks:
            await self._webhooks.close()

    async def handle(self, lease: Lease) -> None:
        """Make one attempt."""
        call = await self._outbox.load(lease)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await self._attempt(call, await self._views.task(call.task_id, None))
        except (DeliveryError, TimeoutError) as error:
            failure = error if isinstance(error, DeliveryError) else DeliveryError("timeout")
            if not failure.is_final and lease.tries < self._max_tries:
                self._count(call.kind, "retried")
                raise failure from error
            await self._end(lease, call.kind, failure.reason)
        else:
            await self._end(lease, call.kind, None)

    async def give_up(self, lease: Lease) -> None:
        """End a callback whose attempts never came to an end."""
        call = await self._outbox.load(lease)
        await self._end(lease, call.kind, "gave_up")

    async def _attempt(self, call: Call, task: TaskRecord) -> None:
        if task.reply is None:  # it is being worked again, and its end will be told
            raise DeliveryError("not_ended")
        if call.kind is Kind.WEBHOOK and self._webhooks:
            event = {"type": f"task.{task.state}", "timestamp": task.finished_at, "data": self._render(task)}
            await self._webhooks.send(call.id, call.target, event)
        elif call.kind is Kind.EMAIL and self._mails:
            await self._mails.send(call.id, call.target, task.reply.text)

    async def _end(self, lease: Lease, kind: Kind, error: str | None) -> None:
        if await self._outbox.end(lease, error=error):
            self._count(kind, "failed" if error else "delivered")

    def _count(self, kind: Kind, outcome: str) -> None:
        self._metrics.callbacks.labels(kind=kind.value, outcome=outcome).inc()


def _counted_already() -> None:
    """Attempts are counted by their kind."""
