"""A server that speaks the Messages API as documented: it checks requests, answers in its format, and fails on demand.

``behaviours`` are used up one by one, then it answers normally. A behaviour is a response to give, or ``hang`` or
``drop``. Errors look as the service's do: ``{"type": "error", "error": {"type": …, "message": …}, "request_id": …}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

API_KEY = "sk-ant-test-key-0123456789"
ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
Behaviour = Callable[[web.Request], Awaitable[web.Response]]


def error(status: int, message: str = "on demand", **headers: str) -> web.Response:
    """An error in the API's format."""
    body = {"type": "error", "error": {"type": ERRORS[status], "message": message}, "request_id": "req_1"}
    return web.json_response(body, status=status, headers={"request-id": "req_1", **headers})


def message(text: str | None, *, model: str = "claude-test", stop_reason: str = "end_turn") -> dict[str, Any]:
    """A message in the API's format; without text, one whose content is empty."""
    return {
        "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [] if text is None else [{"type": "text", "text": text, "citations": None}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "output_tokens": 7, "service_tier": "standard"},
    }


class MessagesApi:
    """The fake. ``requests`` are the bodies it was sent, ``attempts`` counts them all."""

    key = API_KEY
    error = staticmethod(error)
    message = staticmethod(message)

    def __init__(self) -> None:
        self.url = ""
        self.attempts = 0
        self.requests: list[dict[str, Any]] = []
        self.behaviours: list[Behaviour] = []
        self._released = asyncio.Event()

    def then(self, *responses: Callable[[], web.Response]) -> None:
        """Answer the next requests with these, in order."""

        def always(make: Callable[[], web.Response]) -> Behaviour:
            async def behave(_request: web.Request) -> web.Response:
                return make()

            return behave

        self.behaviours += [always(make) for make in responses]

    async def hang(self, _request: web.Request) -> web.Response:
        """Never answer."""
        await self._released.wait()
        return error(500)

    async def drop(self, request: web.Request) -> web.Response:
        """Close the connection in the middle of it all."""
        assert request.transport
        request.transport.close()
        return web.Response()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen on a port of its own."""
        app = web.Application()
        app.router.add_post("/v1/messages", self._post)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            try:
                yield
            finally:
                self._released.set()

    async def _post(self, request: web.Request) -> web.Response:
        self.attempts += 1
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        if given != self.key:  # the SDK sends the one since version 2, and sent the other before
            return error(401, "invalid API key")
        if "anthropic-version" not in request.headers:
            return error(400, "anthropic-version: header is required")
        try:
            body = json.loads(await request.text())
        except ValueError:
            return error(400, "the request body is not valid JSON")
        if wrong := _complaint(body):
            return error(400, wrong)
        self.requests.append(body)
        if self.behaviours:
            return await self.behaviours.pop(0)(request)
        return web.json_response(message("An answer from the model.", model=body["model"]))


def _complaint(body: dict[str, Any]) -> str | None:
    """What the service would refuse in a request."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    checks = {
        "model: Field required": isinstance(body.get("model"), str),
        "max_tokens: Field required": isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0,
        "messages: first message must use the user role": messages[0].get("role") == "user",
        "messages: roles are 'user' and 'assistant'": {one.get("role") for one in messages} <= {"user", "assistant"},
        "messages: all messages must have non-empty content": all(str(one.get("content")).strip() for one in messages),
    }
    return next((complaint for complaint, is_right in checks.items() if not is_right), None)
