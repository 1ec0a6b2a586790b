"""Kubernetes Events: what happened to an agent, for ``kubectl describe`` and ``kubectl events``.

Events are news. They are posted from a bounded queue, in the background and at most once for the same text within ten
minutes; one that cannot be posted is logged and dropped, because no reconciling may wait for it or fail by it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import EVENTS, Manifest
from supportfleet_operator.errors import ClusterError

LOG: Final = logging.getLogger(__name__)

CONTROLLER: Final = "supportfleet.dev/operator"
REPEAT_SECONDS: Final = 600.0
REMEMBERED: Final = 4096
QUEUED: Final = 1000
NOTE_LIMIT: Final = 1024
DEFAULT_NAMESPACE: Final = "default"


@dataclass(frozen=True, slots=True)
class News:
    """One thing worth an Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    action: str = "Reconcile"


def event_of(agent: Mapping[str, Any], news: News, *, instance: str, when: dt.datetime) -> Manifest:
    """The Event for the agent."""
    metadata = agent["metadata"]
    regarding = {
        "apiVersion": agent["apiVersion"],
        "kind": agent["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    note = news.note if len(news.note) <= NOTE_LIMIT else news.note[: NOTE_LIMIT - 1] + "…"
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"] or DEFAULT_NAMESPACE},
        "eventTime": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "type": news.type,
        "reason": news.reason,
        "note": note,
        "action": news.action,
        "regarding": regarding,
    }


class Recorder:
    """Posts Events in the background."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance[:128]
        self._queue: asyncio.Queue[tuple[Mapping[str, Any], News]] = asyncio.Queue(QUEUED)
        self._posted: OrderedDict[tuple[str, News], float] = OrderedDict()

    def post(self, agent: Mapping[str, Any], news: News) -> None:
        """Queue an Event, unless the same was posted lately."""
        now = asyncio.get_running_loop().time()
        identity = (agent["metadata"]["uid"], news)
        if now - self._posted.get(identity, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        self._posted[identity] = now
        self._posted.move_to_end(identity)
        while len(self._posted) > REMEMBERED:
            self._posted.popitem(last=False)
        try:
            self._queue.put_nowait((agent, news))
        except asyncio.QueueFull:
            LOG.warning("event dropped", extra={"agent": agent["metadata"]["name"], "reason": news.reason})

    async def run(self) -> None:
        """Post what is queued until cancelled."""
        while True:
            agent, news = await self._queue.get()
            event = event_of(agent, news, instance=self._instance, when=dt.datetime.now(dt.UTC))
            try:
                await self._client.create(EVENTS, event)
            except ClusterError as error:
                LOG.warning("event not posted", extra={"agent": agent["metadata"]["name"], "error": str(error)})
            finally:
                self._queue.task_done()
