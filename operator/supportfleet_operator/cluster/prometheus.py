"""Asking a Prometheus, over its HTTP API: instant queries, each with the raw answer or the reason why there is none.

What an answer means is the analysis's business; here nothing is parsed and nothing is retried, since the next
measurement asks again. The token goes into one header and nowhere else: not into logs, not into messages, and not to
another server, as redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import aiohttp

from supportfleet_operator.cluster.bodies import read_within

LOG: Final = logging.getLogger(__name__)

AT_ONCE: Final = 8
MOST_BYTES: Final = 2**20
"""An answer with one sample is some 200 bytes; one with a thousand series says no more."""
OWN_WORDS: Final = frozenset({200, 400, 422, 503})
"""Status codes with which Prometheus itself answers, in JSON. Others are of what stands before it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus, and how to be let in."""

    address: str
    timeout: float
    token: str | None = field(default=None, repr=False)


class Reply(NamedTuple):
    """The body of an answer, or why there is none."""

    body: bytes | None
    why: str = ""


class Prometheus(Protocol):
    """Whatever answers queries."""

    async def ask(self, server: Server, queries: Sequence[str]) -> Mapping[str, Reply]:
        """The reply to each query."""


def asking() -> aiohttp.ClientSession:
    """A session for it: no cookies, and the proxies that the environment names."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=4 * AT_ONCE), cookie_jar=aiohttp.DummyCookieJar(), trust_env=True
    )


class PrometheusClient:
    """Asks over HTTP, a few queries at once."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def ask(self, server: Server, queries: Sequence[str]) -> Mapping[str, Reply]:
        """The reply to each query, all within the server's timeout."""
        asked = list(dict.fromkeys(queries))
        replies = await asyncio.gather(*(self._reply(server, query) for query in asked))
        return dict(zip(asked, replies, strict=True))

    async def _reply(self, server: Server, query: str) -> Reply:
        try:
            async with asyncio.timeout(server.timeout):
                reply = await self._ask(server, query)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reply = Reply(None, _reason(error, server))
        if reply.body is None:
            LOG.info("no answer to a query", extra={"server": server.address, "error": reply.why})
        return reply

    async def _ask(self, server: Server, query: str) -> Reply:
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
        async with (
            self._slots,
            self._session.get(
                f"{server.address.rstrip('/')}/api/v1/query",
                params={"query": query, "timeout": f"{server.timeout:g}s"},
                headers=headers | {"Accept": "application/json"},
                allow_redirects=False,
            ) as said,
        ):
            if said.status not in OWN_WORDS:
                return Reply(None, f"{server.address} answered {said.status}{_hint(said.status)}")
            body = await read_within(said.content, MOST_BYTES)
            if len(body) > MOST_BYTES:
                return Reply(None, f"{server.address} answered with more than {MOST_BYTES} bytes")
            return Reply(body)


def _hint(status: int) -> str:
    if status in {401, 403}:
        return ": see spec.rollout.analysis.prometheus.bearerTokenSecretRef"
    return ": see spec.rollout.analysis.prometheus.address" if status in {301, 302, 307, 308, 404} else ""


def _reason(error: Exception, server: Server) -> str:
    """Why there is no answer; a header that cannot be sent is not repeated, since it is the token."""
    if isinstance(error, TimeoutError):
        return f"{server.address} did not answer within {server.timeout:g} s"
    if isinstance(error, aiohttp.InvalidURL) or not isinstance(error, ValueError):
        return f"{server.address} cannot be reached: {error}"
    return f"{server.address} cannot be asked: the bearer token has characters that a header cannot hold"
