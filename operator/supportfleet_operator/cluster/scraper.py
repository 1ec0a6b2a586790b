"""Reading the figures that pods serve at ``/metrics``, straight from their addresses.

A pod that does not answer in time, or answers with anything but its figures, is left out: what a missing pod means is
for the analysis to decide. Not the API server's business, so neither its limiter nor its credentials are used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import aiohttp

from supportfleet_operator.cluster.bodies import read_within

LOG: Final = logging.getLogger(__name__)

TIMEOUT: Final = aiohttp.ClientTimeout(total=0.8)
"""One pod that hangs must not keep the figures of the others from taking a bad canary's traffic within a second."""
AT_ONCE: Final = 32
MOST_BYTES: Final = 2 * 2**20
"""A runtime's figures are some 30 KiB."""
OK: Final = 200


class Target(NamedTuple):
    """Where one pod serves its figures."""

    host: str
    port: int


class Scraper(Protocol):
    """Whatever reads pods' figures."""

    async def scrape(self, targets: Mapping[str, Target]) -> Mapping[str, str]:
        """The figures by pod, in Prometheus' text format; pods that gave none are left out."""


def scraping() -> aiohttp.ClientSession:
    """A session for it: no proxy, no cookies, and no connection kept, since the next measurement is far away."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True), cookie_jar=aiohttp.DummyCookieJar()
    )


class PodScraper:
    """Reads them over HTTP, so many pods at once."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def scrape(self, targets: Mapping[str, Target]) -> Mapping[str, str]:
        """The figures by pod."""
        texts = await asyncio.gather(*(self._ask(pod, target) for pod, target in targets.items()))
        return {pod: text for pod, text in zip(targets, texts, strict=True) if text is not None}

    async def _ask(self, pod: str, target: Target) -> str | None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        try:
            async with (
                self._slots,
                self._session.get(
                    f"http://{host}:{target.port}/metrics", timeout=TIMEOUT, allow_redirects=False
                ) as said,
            ):
                body = await read_within(said.content, MOST_BYTES) if said.status == OK else b""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            LOG.info("no figures", extra={"pod": pod, "error": str(error) or "timed out"})
            return None
        if not body or len(body) > MOST_BYTES:
            LOG.info("no figures", extra={"pod": pod, "error": f"status {said.status}, {len(body)} bytes"})
            return None
        return body.decode(errors="replace")
