"""A server that speaks the Messages API as documented: it checks requests, answers in its format, and fails on demand.

``behaviours`` are used up one by one, then it answers normally. A behaviour is a response to give, or ``hang`` or
``drop``. Errors look as the service's do: ``{"type": "error", "error": {"type": …, "message": …}, "request_id": …}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
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


def tool_use(*calls: tuple[str, dict[str, Any]], text: str = "", model: str = "claude-test") -> dict[str, Any]:
    """A message that asks for calls of tools, all at once."""
    asked = message(text or None, model=model, stop_reason="tool_use")
    blocks = [
        {"type": "tool_use", "id": f"toolu_{number:02}_{name}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {**asked, "content": [*asked["content"], *blocks]}


class MessagesApi:
    """The fake. ``requests`` are the bodies it was sent, ``attempts`` counts them all."""

    key = API_KEY
    error = staticmethod(error)
    message = staticmethod(message)
    tool_use = staticmethod(tool_use)

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

    def then_say(self, *bodies: dict[str, Any]) -> None:
        """Answer the next requests with these messages, in order."""
        self.then(*[functools.partial(web.json_response, body) for body in bodies])

    def results(self, request: int = -1) -> list[dict[str, Any]]:
        """The tool results that a request ends with."""
        last = self.requests[request]["messages"][-1]["content"]
        return [block for block in last if block["type"] == "tool_result"] if isinstance(last, list) else []

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
        "tools: each needs a name and an object as its input_schema": all(
            _is_tool(one) for one in body.get("tools", [])
        ),
        "messages: each `tool_use` block must have a `tool_result` in the next message": _are_paired(messages),
        "messages: tools must be defined for their use": bool(body.get("tools")) or not any(map(_used, messages)),
    }
    return next((complaint for complaint, is_right in checks.items() if not is_right), None)


def _is_tool(tool: Any) -> bool:
    return isinstance(tool.get("name"), str) and tool.get("input_schema", {}).get("type") == "object"


def _used(message: dict[str, Any], kind: str = "tool_use", key: str = "id") -> list[str]:
    """The ids of a message's blocks of a kind."""
    content = message["content"]
    return [block[key] for block in content if block["type"] == kind] if isinstance(content, list) else []


def _are_paired(messages: list[dict[str, Any]]) -> bool:
    answered = [_used(message, "tool_result", "tool_use_id") for message in messages]
    return [_used(message) for message in messages] == [*answered[1:], []] and not answered[0]
