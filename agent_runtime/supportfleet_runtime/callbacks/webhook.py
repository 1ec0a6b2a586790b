"""Webhooks, as Standard Webhooks has them: a signed POST whose ``webhook-id`` is the same at each attempt.

The URL is judged before the request and every address that its host resolves to after that; the connection is made to
one of the addresses that were judged, so a name that resolves otherwise a moment later changes nothing. Redirects are
not followed, the response's body is not read, cookies and proxies are not known.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

import orjson
from aiohttp import ClientError, ClientSession, ClientSSLError, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from supportfleet_runtime.callbacks.addresses import AllowList, forbidden, url_problem
from supportfleet_runtime.errors import DeliveryError

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
CONNECTIONS: Final = 32
MAX_BODY: Final = 512 * 1024

Resolve = Callable[[str, int, socket.AddressFamily], Awaitable[list[ResolveResult]]]


class Webhooks:
    """Sends webhooks, signed with each of the ``secrets``."""

    def __init__(
        self,
        secrets: Sequence[str],
        allowed: AllowList,
        *,
        now: Callable[[], datetime],
        total: float = TOTAL_SECONDS,
        resolve: Resolve | None = None,
    ) -> None:
        from standardwebhooks import Webhook  # noqa: PLC0415 - only where webhooks are configured

        self._signers = [Webhook(secret) for secret in secrets]
        self._allowed = allowed
        self._now = now
        self._timeout = ClientTimeout(total=total, sock_connect=CONNECT_SECONDS)
        self._resolve = resolve
        self._session: ClientSession | None = None

    async def send(self, id_: str, url: str, document: dict[str, Any]) -> None:
        """Deliver ``document`` once, or raise ``DeliveryError``."""
        if url_problem(url, self._allowed):  # what is allowed may have changed since it was accepted
            raise DeliveryError("address_not_allowed", is_final=True)
        body = _body(document)
        try:
            async with self._opened().post(
                url, data=body, headers=self._headers(id_, body), allow_redirects=False
            ) as response:
                status = response.status
                response.close()
        except TimeoutError as error:
            raise DeliveryError("timeout") from error
        except ClientSSLError as error:
            raise DeliveryError("tls") from error
        except (ClientError, OSError) as error:
            raise DeliveryError("unreachable") from error
        _judge(status)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    def _headers(self, id_: str, body: bytes) -> dict[str, str]:
        now = self._now()
        text = body.decode()
        return {
            "Content-Type": "application/json",
            "User-Agent": "supportfleet-runtime",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(id_, now, text) for signer in self._signers),
        }

    def _opened(self) -> ClientSession:
        if self._session is None:
            resolver = JudgingResolver(self._allowed, self._resolve or ThreadedResolver().resolve)
            connector = TCPConnector(resolver=resolver, use_dns_cache=False, limit=CONNECTIONS, force_close=True)
            self._session = ClientSession(connector=connector, timeout=self._timeout, cookie_jar=DummyCookieJar())
        return self._session


class JudgingResolver(AbstractResolver):
    """Resolves a host to addresses that may all be reached, or refuses."""

    def __init__(self, allowed: AllowList, resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses, which the connection is then made to."""
        found = await self._resolve(host, port, family)
        if self._allowed.has_host(host):
            return found
        if forbidden([ip_address(one["host"]) for one in found], self._allowed):
            raise DeliveryError("address_not_allowed", is_final=True)
        return found

    async def close(self) -> None:
        """There is nothing to be closed."""


def _body(document: dict[str, Any]) -> bytes:
    """The document as JSON; without its result where that is too large to be posted to anybody."""
    body = orjson.dumps(document)
    if len(body) <= MAX_BODY:
        return body
    return orjson.dumps({**document, "data": {**document["data"], "result": None, "result_left_out": True}})


def _judge(status: int) -> None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise DeliveryError("redirect")
    raise DeliveryError(f"http_{status}", is_final=status == HTTPStatus.GONE)  # 410: it is not wanted any more
