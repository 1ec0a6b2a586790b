"""Runs the reconciler: child watches, one queue, a bounded number of workers.

Events of an agent or of its children put the agent's key on the queue. Workers begin when every watch has its first
list, so that nobody acts on half a picture. A worker that meets a busy or absent API server gives the key back to the
queue, which owns the retry; a bug in one agent's reconciling is logged with its trace, counted, and retried like that
too, and the other agents go on.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.prometheus import Prometheus
from supportfleet_operator.cluster.recorder import Recorder
from supportfleet_operator.cluster.resources import OPTIONAL, WATCHED, AgentKey
from supportfleet_operator.cluster.scraper import Scraper
from supportfleet_operator.cluster.watch import OptionalWatcher, Watcher
from supportfleet_operator.errors import ApiError, Busy, ClusterError
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.reconcile.agents import Agents
from supportfleet_operator.reconcile.apply import Applier
from supportfleet_operator.reconcile.probes import Prober
from supportfleet_operator.reconcile.queue import WorkQueue
from supportfleet_operator.reconcile.reconcile import RESYNC, Reconciler
from supportfleet_operator.reconcile.references import ReferenceReader
from supportfleet_operator.resources import AGENT, MANAGED_BY, MANAGER_NAME

LOG: Final = logging.getLogger(__name__)

SELECTOR: Final = f"{AGENT},{MANAGED_BY}={MANAGER_NAME}"
STALE_WATCH: Final = 180.0
"""A watch that heard nothing for so long has missed several bookmarks and its own renewal: the process is ill."""
STUCK_WORKER: Final = 300.0
"""Every request has a deadline, so no reconcile takes this long."""
SPREAD: Final = 0.2
RESERVED: Final = 2
"""Workers beside the others for agents whose rollout has customers' requests, whatever the others wait for."""


def utc_now() -> dt.datetime:
    """The time now."""
    return dt.datetime.now(dt.UTC)


class Engine:
    """Everything that runs while this replica leads."""

    def __init__(
        self,
        client: Client,
        metrics: Metrics,
        scraper: Scraper,
        prometheus: Prometheus,
        *,
        namespaces: Sequence[str] = (),
        workers: int = 8,
        instance: str = "supportfleet-operator",
    ) -> None:
        self.agents = Agents()
        self.queue: WorkQueue[AgentKey] = WorkQueue(is_urgent=self.agents.is_urgent)
        self.cache = Cache(AGENT, self.queue.add)
        self.recorder = Recorder(client, instance)
        self.prober = Prober(client, scraper, prometheus, self.queue.add)
        self.reconciler = Reconciler(
            agents=self.agents,
            cache=self.cache,
            client=client,
            applier=Applier(client, self.cache, {}),
            references=ReferenceReader(client, time.monotonic),
            recorder=self.recorder,
            prober=self.prober,
            served=self._served,
            clock=utc_now,
        )
        scopes: Sequence[str | None] = namespaces or (None,)
        self._optional = [
            OptionalWatcher(
                client, self.cache, resource, on_change=self._look_at_all, namespace=namespace, selector=SELECTOR
            )
            for resource in OPTIONAL
            for namespace in scopes
        ]
        self.watchers: list[Watcher] = [
            *(
                Watcher(client, self.cache, resource, namespace=namespace, selector=SELECTOR)
                for resource in WATCHED
                for namespace in scopes
            ),
            *self._optional,
        ]
        self._metrics = metrics
        self._workers = workers
        self._busy_since: dict[AgentKey, float] = {}
        self._measure()

    async def run(self) -> None:
        """Watch and reconcile until cancelled; whatever ends one task ends all."""
        try:
            async with asyncio.TaskGroup() as group:
                for watcher in self.watchers:
                    group.create_task(watcher.run(), name=f"watch {watcher.resource.plural}")
                group.create_task(self.recorder.run(), name="recorder")
                await asyncio.gather(*(watcher.synced.wait() for watcher in self.watchers))
                LOG.info("caches filled", extra={"objects": len(self.cache)})
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"worker {number}")
                for number in range(RESERVED if self._workers else 0):
                    group.create_task(self._work(urgent_only=True), name=f"urgent worker {number}")
        finally:
            await self.prober.stop()

    def agent_changed(self, raw: Mapping[str, Any]) -> None:
        """An agent was added or changed."""
        self.queue.add(self.agents.put(raw))

    def agent_deleted(self, raw: Mapping[str, Any]) -> None:
        """An agent is gone."""
        key = AgentKey(raw["metadata"]["namespace"], raw["metadata"]["name"])
        if self.agents.remove(key, raw["metadata"]["uid"]):
            self.queue.forget(key)
            self.prober.forget(key)

    @property
    def synced(self) -> bool:
        """Whether every watch has its first list."""
        return all(watcher.synced.is_set() for watcher in self.watchers)

    def ailments(self) -> list[str]:
        """What is wrong with the process itself; empty in health."""
        now = asyncio.get_running_loop().time()
        silent = [f"the watch of {one.resource.plural} is silent" for one in self.watchers if one.age > STALE_WATCH]
        stuck = [f"{key} is stuck" for key, since in self._busy_since.items() if now - since > STUCK_WORKER]
        return silent + stuck

    def _served(self) -> frozenset[str]:
        """Optional kinds that the cluster has in every namespace that is looked at."""
        absent = {watcher.resource.kind for watcher in self._optional if not watcher.served}
        return frozenset(watcher.resource.kind for watcher in self._optional) - absent

    def _look_at_all(self) -> None:
        """A kind came or went: every agent may want something else now."""
        for key in self.agents:
            self.queue.add(key)

    async def _work(self, *, urgent_only: bool = False) -> None:
        """Reconcile one key after the other."""
        while True:
            key = await self.queue.get(urgent_only=urgent_only)
            await self._reconcile(key)

    async def _reconcile(self, key: AgentKey) -> None:
        loop = asyncio.get_running_loop()
        self._busy_since[key] = started = loop.time()
        try:
            again = await self.reconciler.reconcile(key)
        except ClusterError as error:
            after = error.retry_after if isinstance(error, Busy) else None
            delay = self.queue.failed(key, at_least=after or 0.0)
            self._metrics.reconciles.labels("retry").inc()
            code = error.status if isinstance(error, ApiError) else 0
            LOG.warning("to be retried", extra={"agent": str(key), "error": str(error), "code": code, "in": delay})
        except Exception:
            # The edge of one agent: a bug that its spec or its children bring out must not stop the others.
            delay = self.queue.failed(key)
            self._metrics.reconciles.labels("error").inc()
            LOG.exception("reconciling failed", extra={"agent": str(key), "in": delay})
        else:
            self.queue.done(key)
            self._metrics.reconciles.labels("success").inc()
            if again is not None:
                spread = SPREAD * random.random() if again >= RESYNC else 0.0  # noqa: S311 - keeps no secret
                self.queue.add_after(key, again * (1 + spread))  # what somebody waits for comes on time
        finally:
            del self._busy_since[key]
            self._metrics.reconcile_seconds.observe(loop.time() - started)

    def _measure(self) -> None:
        """Figures that are read when Prometheus asks for them."""
        self._metrics.read(
            "supportfleet_queue_depth", "Agents that wait to be reconciled.", "", lambda: [("", len(self.queue))]
        )
        self._metrics.read(
            "supportfleet_watch_last_event_age_seconds",
            "Seconds since the API server last said anything on a watch: an event, a bookmark, that it is open.",
            "resource",
            self._ages,
        )
        self._metrics.read(
            "supportfleet_agents", "SupportAgents by phase.", "phase", lambda: list(self.agents.phases().items())
        )
        self._metrics.read(
            "supportfleet_rollouts",
            "SupportAgents by phase of their rollout.",
            "phase",
            lambda: list(self.agents.rollouts().items()),
        )
        self._metrics.read(
            "supportfleet_cached_objects", "Children and pods in the cache.", "", lambda: [("", len(self.cache))]
        )

    def _ages(self) -> Iterable[tuple[str, float]]:
        ages: dict[str, float] = {}
        for watcher in self.watchers:
            ages[watcher.resource.plural] = max(watcher.age, ages.get(watcher.resource.plural, 0.0))
        return list(ages.items())
