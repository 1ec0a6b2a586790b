"""Keep a cache in step with the API server: list in pages, then watch, for ever.

A watch resumes at the last resourceVersion it saw (bookmarks move it on while nothing happens); ``410 Gone`` starts
over with a list. A stream that is silent for longer than bookmarks usually are may be dead, whatever TCP says, and is
opened again; that it opens is a sign of life, since a kind that never changes has no bookmarks. Failures, and streams
that end at once, back off; nothing but cancellation ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import Manifest, Resource
from supportfleet_operator.errors import ApiError, Busy, ClusterError, Forbidden, Gone, NotFound

LOG: Final = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
SHORT: Final = 1.0
"""A stream that lasts no longer is no use, and opening it again and again would be a burden."""
LOOK_AGAIN: Final = 15.0
"""An optional kind that is not served is looked for this often: one small request."""


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after this many failures in a row; ``jitter`` in [0, 1] keeps replicas apart."""
    delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10))
    return delay * (0.5 + jitter / 2)


class Watcher:
    """One kind in one namespace (or in all), copied into the cache."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        resource: Resource,
        *,
        namespace: str | None = None,
        selector: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        """Set when it is known what there is."""
        self._client = client
        self._cache = cache
        self._namespace = namespace
        self._selector = selector
        self._clock = clock
        self._heard = clock()
        self._version = ""

    @property
    def age(self) -> float:
        """Seconds since the API server last said anything, be it that the watch is open."""
        return self._clock() - self._heard

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            begun = self._clock()
            trouble: ClusterError | None = None
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except Gone:
                self._version = ""
            except ClusterError as error:
                trouble = error
            lasted = self._clock() - begun
            failures = failures + 1 if trouble is not None or lasted < SHORT else 0
            if failures:
                await self._rest(failures, trouble)

    async def _list(self) -> None:
        manifests: list[Manifest] = []
        version = ""
        async for page in self._client.list_pages(self.resource, self._namespace, self._selector):
            manifests += page.items
            version = page.resource_version
        self._cache.replace(self.resource, self._namespace, manifests)
        self._cache.seen(self.resource, version)
        self._heard, self._version = self._clock(), version
        self.synced.set()
        LOG.info("listed", extra={"resource": self.resource.plural, "count": len(manifests)})

    async def _follow(self) -> None:
        """One watch request; it ends when the server ends it."""
        async for event in self._client.watch(self.resource, self._namespace, self._selector, self._version):
            self._heard = self._clock()
            self._version = event.object["metadata"]["resourceVersion"]
            if event.type == "DELETED":
                self._cache.delete(event.object)
            elif event.type in {"ADDED", "MODIFIED"}:
                self._cache.put(event.object)
            self._cache.seen(self.resource, self._version)

    async def _rest(self, failures: int, trouble: ClusterError | None) -> None:
        after = trouble.retry_after if isinstance(trouble, Busy) else None
        delay = max(after or 0.0, backoff(failures, random.random()))  # noqa: S311 - spreads load, keeps no secret
        # A stream that breaks now and then is weather; one that cannot be opened at all is worth an alert.
        level = logging.WARNING if isinstance(trouble, ApiError) or failures > 1 else logging.INFO
        LOG.log(
            level,
            "watch interrupted",
            extra={
                "resource": self.resource.plural,
                "error": str(trouble or "it ended at once"),
                "failures": failures,
                "retry_in": delay,
            },
        )
        await asyncio.sleep(delay)


class OptionalWatcher(Watcher):
    """The same for a kind that the cluster may lack, now or later: it is watched whenever it is served.

    A kind that the operator may not list counts as not served: older rights must not keep it from starting.
    """

    def __init__(
        self, client: Client, cache: Cache, resource: Resource, *, on_change: Callable[[], None], **more: Any
    ) -> None:
        super().__init__(client, cache, resource, **more)
        self.served = False
        self._on_change = on_change

    async def run(self) -> None:
        """Wait for the kind, watch it until it is gone, and wait again."""
        failures = 0
        while True:
            try:
                with contextlib.suppress(_Absent):
                    if await self._client.served(self.resource):
                        await super().run()
            except ClusterError as error:
                failures += 1
                await super()._rest(failures, error)
                continue
            self._heard, failures = self._clock(), 0
            self._tell(served=False)
            self.synced.set()
            await asyncio.sleep(LOOK_AGAIN)

    async def _list(self) -> None:
        await super()._list()
        self._tell(served=True)

    async def _rest(self, failures: int, trouble: ClusterError | None) -> None:
        if isinstance(trouble, NotFound | Forbidden):
            LOG.info("kind is not served", extra={"resource": self.resource.plural, "error": str(trouble)})
            raise _Absent
        await super()._rest(failures, trouble)

    def _tell(self, *, served: bool) -> None:
        if not served:
            self._version = ""
            self._cache.replace(self.resource, self._namespace, [])
        if self.served != served:
            self.served = served
            self._on_change()


class _Absent(Exception):  # noqa: N818 - ends a watch, and goes no further
    """The kind is not served any more."""
