"""The tool service over HTTP.

What a failure means depends on how far the call got. Nothing was done where no connection was made, or where the
service says that it refused the request unread (4xx). Everything else (silence, a connection that breaks, an answer
that is none, 5xx) leaves it open. One call is one request: whether to ask again is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import aiohttp
import orjson
from pydantic import ValidationError

from supportfleet_runtime.agent.breaker import CircuitBreaker, Permit
from supportfleet_runtime.tools.backend import ToolRequest
from supportfleet_runtime.tools.outcome import KeyReusedError, Outcome, OutcomeUnknownError, ToolsUnavailableError
from supportfleet_runtime.tools.wire import EFFECTS_PATH, IDEMPOTENCY_KEY, TOOLS_PATH

MAX_RESPONSE: Final = 256 * 1024
CONNECTIONS: Final = 100


class HttpTools:
    """A ``Backend`` at an address."""

    def __init__(self, url: str, key: str, breaker: CircuitBreaker) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self._breaker = breaker
        self._opened: aiohttp.ClientSession | None = None

    @property
    def available(self) -> bool:
        """Whether the service is not left alone at present."""
        return self._breaker.would_admit

    async def perform(self, request: ToolRequest, *, within: float) -> Outcome:
        """Call a tool."""
        body = {
            "customer_id": request.customer_id,
            "conversation_id": request.conversation_id,
            "arguments": request.arguments.model_dump(mode="json", exclude_none=True),
        }
        key = {IDEMPOTENCY_KEY: request.key} if request.key else {}
        status, answer = await self._send("POST", f"{TOOLS_PATH}/{request.tool.name}", within, orjson.dumps(body), key)
        if status == HTTPStatus.CONFLICT:
            raise KeyReusedError("the service knows the key of another call")
        if status != HTTPStatus.OK:
            raise ToolsUnavailableError(f"the service refused: HTTP {status}")
        return _outcome(answer)

    async def effect(self, key: str, *, within: float) -> Outcome | None:
        """What came of a call."""
        try:
            status, answer = await self._send("GET", f"{EFFECTS_PATH}/{key}", within)
        except ToolsUnavailableError as error:
            raise OutcomeUnknownError(str(error)) from error
        if status == HTTPStatus.NOT_FOUND and b"urn:supportfleet:problem:no-such-effect" in answer:
            return None
        if status != HTTPStatus.OK:
            raise OutcomeUnknownError(f"the service refused to tell: HTTP {status}")
        return _outcome(answer)

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def _send(
        self, method: str, path: str, within: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request; its status, below 500, and body."""
        permit = self._breaker.admit()
        if permit is None:
            raise ToolsUnavailableError("the service failed too often of late")
        try:
            status, answer = await self._exchange(method, path, within, body, headers or {})
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            permit.failed()
            raise ToolsUnavailableError(f"no connection: {type(error).__name__}") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            permit.failed()
            raise OutcomeUnknownError(f"no answer: {type(error).__name__}") from error
        except BaseException:
            permit.dropped()
            raise
        return _judge(status, permit), answer

    async def _exchange(
        self, method: str, path: str, within: float, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        sent = {**self._headers, **headers, **({"Content-Type": "application/json"} if body is not None else {})}
        limits = aiohttp.ClientTimeout(total=within, sock_connect=within / 2)
        async with self._session().request(
            method, self._url + path, data=body, headers=sent, timeout=limits, allow_redirects=False
        ) as response:
            answer = await response.content.read(MAX_RESPONSE + 1)
            while len(answer) <= MAX_RESPONSE and (more := await response.content.read(MAX_RESPONSE)):
                answer += more
            if len(answer) > MAX_RESPONSE:
                raise ValueError("the answer is too long")
            return response.status, answer

    def _session(self) -> aiohttp.ClientSession:
        """Opened at the first call, in the loop that makes it. Proxies of the environment are not used."""
        if self._opened is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._opened = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._opened


def _judge(status: int, permit: Permit) -> int:
    """Tell the breaker; an error of the service's own leaves open what was done."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        permit.failed()
        raise OutcomeUnknownError(f"the service failed: HTTP {status}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}:
        permit.failed()
    else:
        permit.succeeded()
    return status


def _outcome(answer: bytes) -> Outcome:
    try:
        return Outcome.model_validate_json(answer)
    except ValidationError as error:
        raise OutcomeUnknownError("the answer is no outcome") from error
