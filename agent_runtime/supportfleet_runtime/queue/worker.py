"""The worker: takes leases from the queue and has them handled, many at once, none of them in another's way.

A handler ends its lease itself, in the transaction that stores its result. One that fails has its item tried again
after a growing pause; at the last failure ``give_up`` ends it. While a handler runs its lease is kept alive, for
``visibility`` seconds at most; a handler whose lease is another's by now is stopped. So a crashed process's items are
taken over after one lease, and a handler that hangs holds its item no longer than that limit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from supportfleet_runtime.errors import DeliveryError, ProviderError, StorageError, StorageUnavailableError
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.tracing import Field, Fields, Kind, NoTracer, Span, Tracer
from supportfleet_runtime.queue.broker import BrokerUnavailableError
from supportfleet_runtime.queue.port import Lease, Leases
from supportfleet_runtime.queue.wakeup import Wakeup

log = structlog.get_logger()

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
SETTLE: Final = 0.1
"""How long a handler that has just ended its lease may take to notice: until then it looks like one that lost it."""


@dataclass(frozen=True)
class Pauses:
    """The pauses before an item is tried again: each ``growth`` times as long as the one before, up to ``longest``."""

    first: float = FIRST_PAUSE
    longest: float = LONGEST_PAUSE
    growth: float = 2.0

    def after(self, tries: int, chance: float) -> float:
        """The pause after so many failed ``tries``, spread by ``chance`` (0 to 1). Pure."""
        return min(self.longest, self.first * self.growth ** (tries - 1)) * (0.5 + chance / 2)


@dataclass(frozen=True)
class WorkerSettings:
    """How much at once, and for how long."""

    batch: int
    visibility: float
    lease: float
    max_tries: int
    poll: float = 1.0
    """How often to look where nothing was heard: retries that are due, leases that ran out, lost signals."""
    kind: str = "task"
    """What the items are, in the log."""
    pauses: Pauses = Pauses()


class Worker:
    """Works a queue until it is stopped."""

    def __init__(
        self,
        *,
        queue: Leases,
        handle: Callable[[Lease], Awaitable[None]],
        give_up: Callable[[Lease], Awaitable[None]],
        wakeup: Wakeup,
        settings: WorkerSettings,
        metrics: Metrics,
        retried: Callable[[], None] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._queue = queue
        self._handle = handle
        self._give_up = give_up
        self._wakeup = wakeup
        self._settings = settings
        self._retried = retried or metrics.tasks.labels(outcome="retried").inc
        self._kind = settings.kind
        self._tracer = tracer or NoTracer()
        self._running: dict[str, tuple[Lease, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()
        self._ended_looking = asyncio.Event()
        self._ended_looking.set()
        self._looks = 0

    async def run(self) -> None:
        """Take and handle items until ``stop``."""
        heartbeat = asyncio.create_task(self._keep_alive())
        self._ended_looking.clear()
        try:
            while not self._stopping.is_set():
                room = self._settings.batch - len(self._running)
                self._wakeup.has_room = room > 0
                leases = await self._receive(room) if room else ()
                if self._stopping.is_set():  # they had been asked for before
                    await self._give_back(leases or ())
                    break
                for lease in leases or ():
                    self._start(lease)
                if not room or leases is None or (len(leases) < room and not self._queue.waits):
                    await self._wakeup.wait(self._settings.poll)
        finally:
            self._wakeup.has_room = False
            self._ended_looking.set()
            heartbeat.cancel()

    async def stop(self, grace: float) -> None:
        """Take nothing more, let what runs end within ``grace`` seconds, and give the rest back to the queue."""
        self._stopping.set()
        self._wakeup.has_room = False
        self._wakeup.notify()
        running = [task for _, task in self._running.values()]
        looking = asyncio.create_task(self._ended_looking.wait())
        await asyncio.wait([looking, *running], timeout=grace)
        looking.cancel()
        left = list(self._running.values())
        for _, task in left:
            task.cancel()
        if left:
            await asyncio.wait([task for _, task in left])
            await self._queue.release([lease for lease, _ in left])
            log.warning("leases_released", number=len(left))

    async def _receive(self, room: int) -> tuple[Lease, ...] | None:
        """Leases; ``None`` where the queue can't be asked now."""
        self._looks += 1
        try:
            return tuple(await self._queue.receive(room))
        except (StorageError, BrokerUnavailableError) as error:
            log.warning("queue_unavailable", reason=str(error))
            return None

    async def _give_back(self, leases: Sequence[Lease]) -> None:
        try:
            await self._queue.release(leases)
        except StorageError as error:
            log.warning("leases_not_released", reason=str(error))  # they run out

    def _start(self, lease: Lease) -> None:
        task = asyncio.create_task(self._work(lease))
        self._running[lease.id] = (lease, task)
        looks = self._looks
        task.add_done_callback(lambda _task: self._ended(lease, looks))

    def _ended(self, lease: Lease, looks: int) -> None:
        """Look again where there was no room, or where a look since then may have passed over a later turn."""
        full = len(self._running) >= self._settings.batch
        if self._running.get(lease.id, (None,))[0] is lease:
            del self._running[lease.id]
        if full or self._looks != looks:
            self._wakeup.notify()

    async def _work(self, lease: Lease) -> None:
        """Handle one item, in its trace; whatever goes wrong stays its own."""
        if lease.tries == 1 and lease.created_at:
            self._tracer.passed("queue wait", lease.created_at, lease.leased_at, parent=lease.trace)
        fields: Fields = {Field.KIND: self._kind, Field.TASK: lease.id, Field.TRIES: lease.tries}
        with self._tracer.begin("work", Kind.CONSUMER, fields, parent=lease.trace) as working:
            await self._attempt(lease, working)

    async def _attempt(self, lease: Lease, working: Span) -> None:
        try:
            if lease.tries > self._settings.max_tries:  # it never came so far as to fail: it took the process with it
                await self._bury(lease)
                return
            async with asyncio.timeout(self._settings.visibility):
                await self._handle(lease)
        except Exception as error:  # noqa: BLE001 - one bad item must not stop the others
            working.fail(type(error).__name__)
            await self._failed(lease, error)

    async def _failed(self, lease: Lease, error: Exception) -> None:
        log.warning("task_failed", kind=self._kind, task_id=lease.id, tries=lease.tries, exc_info=error)
        try:
            if lease.tries >= self._settings.max_tries and not isinstance(error, StorageUnavailableError):
                await self._bury(lease)
                return
            delay = self._settings.pauses.after(lease.tries, random.random())  # noqa: S311 - spreads retries, guards nothing
            # Only errors of our own have a reason that is a word of ours: another's may quote anything.
            reason = error.reason if isinstance(error, DeliveryError | ProviderError) else type(error).__name__
            await self._queue.retry(lease, delay, reason)
            self._retried()
        except Exception as second:  # the lease runs out, and the item comes back
            log.warning("task_left_to_its_lease", kind=self._kind, task_id=lease.id, exc_info=second)

    async def _bury(self, lease: Lease) -> None:
        await self._give_up(lease)
        log.error("task_dead", kind=self._kind, task_id=lease.id, tries=lease.tries)

    async def _keep_alive(self) -> None:
        """Extend the leases of what runs; stop what is another worker's by now."""
        while True:
            await asyncio.sleep(self._settings.lease / 3)
            held = {id_: lease for id_, (lease, _) in self._running.items()}
            if not held:
                continue
            try:
                kept = await self._queue.extend(list(held.values()))
            except StorageError as error:
                log.warning("leases_not_extended", reason=str(error))
                continue
            if held.keys() - kept:
                await asyncio.sleep(SETTLE)
            for id_ in held.keys() - kept:
                current = self._running.get(id_)
                if current is not None and current[0] is held[id_]:
                    current[1].cancel()
                    log.warning("lease_lost", kind=self._kind, task_id=id_)
