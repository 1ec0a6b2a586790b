"""Leader election by a Lease: one replica reconciles, the others wait.

The holder renews; who sees no renewal for the lease's duration takes over. Only the local monotonic clock measures that
(the times in the Lease are for people), so clocks that disagree do no harm. A holder that cannot renew stops before the
others may start: its deadline is shorter than their patience. The figures give a failover of at most
``DURATION + RETRY`` = 14 seconds after a crash, and at once after a clean stop, which releases the lease.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import LEASES, Manifest
from supportfleet_operator.errors import ClusterError, Conflict, LeadershipLost

LOG: Final = logging.getLogger(__name__)

DURATION: Final = 12.0
DEADLINE: Final = 8.0
RETRY: Final = 2.0
RELEASE_TIMEOUT: Final = 3.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The lease as this replica last saw it change."""

    record: tuple[str, str]
    """Holder and renewTime: whatever changes here is a sign of life."""
    at: float


def sight(previous: Sighting | None, lease: Manifest, now: float) -> Sighting:
    """Remember when the lease last changed, by our own clock."""
    spec = lease.get("spec") or {}
    record = (spec.get("holderIdentity") or "", str(spec.get("renewTime") or ""))
    return previous if previous is not None and previous.record == record else Sighting(record, now)


def decide(sighting: Sighting, identity: str, now: float) -> Literal["take", "wait"]:
    """Whether the lease is ours to take: free, our own from before, or not renewed for its duration."""
    holder = sighting.record[0]
    return "take" if holder in {"", identity} or now - sighting.at >= DURATION else "wait"


def record(identity: str, lease: Manifest | None, *, name: str, namespace: str, when: dt.datetime) -> Manifest:
    """The Lease with us as its holder."""
    spec = dict((lease or {}).get("spec") or {})
    stamp = when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if spec.get("holderIdentity") != identity:
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if lease else 0)
        spec["acquireTime"] = stamp
    spec |= {"holderIdentity": identity, "leaseDurationSeconds": int(DURATION), "renewTime": stamp}
    metadata = (lease or {}).get("metadata") or {"name": name, "namespace": namespace}
    return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}


@dataclass(slots=True)
class Elector:
    """Takes part in the election for one Lease."""

    client: Client
    name: str
    namespace: str
    identity: str
    led: Callable[[bool], None]
    """Told when this replica begins and ends to lead."""
    lease: Manifest | None = None
    renewed: float = 0.0

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        """Wait to lead, then lead for the body; the task it gives raises LeadershipLost if that ends first."""
        await self._acquire()
        self.led(True)  # noqa: FBT003 - the callback is a gauge
        renewal = asyncio.create_task(self._renew(), name="lease renewal")
        try:
            yield renewal
        finally:
            self.led(False)  # noqa: FBT003 - as above
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            await self._release()

    async def _acquire(self) -> None:
        loop = asyncio.get_running_loop()
        sighting: Sighting | None = None
        while True:
            try:
                started = loop.time()
                self.lease = await self.client.get(LEASES, self.namespace, self.name)
                if self.lease is not None:
                    sighting = sight(sighting, self.lease, loop.time())
                if sighting is None or self.lease is None or decide(sighting, self.identity, loop.time()) == "take":
                    await self._write(started)
                    LOG.info("leading", extra={"identity": self.identity})
                    return
            except Conflict:
                LOG.info("another replica took the lease")
            except ClusterError as error:
                LOG.warning("lease unavailable", extra={"error": str(error)})
            await asyncio.sleep(RETRY * (0.75 + random.random() / 4))  # noqa: S311 - spreads load, keeps no secret

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RETRY)
            try:
                async with asyncio.timeout_at(self.renewed + DEADLINE):
                    await self._renew_once(loop.time())
            except TimeoutError as error:
                raise LeadershipLost(f"the lease was not renewed for {DEADLINE:.0f} s") from error
            except ClusterError as error:
                LOG.warning("lease not renewed", extra={"error": str(error)})
                if loop.time() >= self.renewed + DEADLINE:
                    raise LeadershipLost(f"the lease was not renewed for {DEADLINE:.0f} s: {error}") from error

    async def _renew_once(self, started: float) -> None:
        """Renew; a conflict may be our own write whose answer was lost, or somebody's edit: look who holds it."""
        try:
            await self._write(started)
        except Conflict:
            await self._look()
            await self._write(started)

    async def _look(self) -> None:
        self.lease = await self.client.get(LEASES, self.namespace, self.name)
        holder = ((self.lease or {}).get("spec") or {}).get("holderIdentity")
        if self.lease is not None and holder != self.identity:
            self.lease = None
            raise LeadershipLost(f"{holder or 'nobody'} holds the lease")

    async def _write(self, started: float) -> None:
        """Write the lease; it counts from before the request, as the others may have seen it then."""
        when = dt.datetime.now(dt.UTC)
        ours = record(self.identity, self.lease, name=self.name, namespace=self.namespace, when=when)
        write = self.client.create if self.lease is None else self.client.update
        self.lease = await write(LEASES, ours, urgent=True)
        self.renewed = started

    async def _release(self) -> None:
        """Give the lease back, so that another replica need not wait for it to expire."""
        if self.lease is None:
            return
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._release_once()
            LOG.info("released the lease")
        except (ClusterError, LeadershipLost, TimeoutError) as error:
            LOG.warning("lease not released", extra={"error": str(error)})

    async def _release_once(self) -> None:
        """Empty the lease; after a conflict, as a renewal that was cut short makes, see whose it is and try again."""
        while self.lease is not None:
            spec = self.lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
            try:
                await self.client.update(LEASES, self.lease | {"spec": spec}, urgent=True)
            except Conflict:
                await self._look()
            else:
                return
