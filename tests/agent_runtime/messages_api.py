"""A server that speaks the Messages API as documented: it checks requests, answers in its format, and fails on demand.

``behaviours`` are used up one by one, then it answers normally. A behaviour is a response to give, or ``hang`` or
``drop``. Errors look as the service's do: ``{"type": "error", "error": {"type": …, "message": …}, "request_id": …}``.

A message is streamed to who asks for a stream, unless ``streams`` is false. ``then_break`` streams a part of one, and
then fails: by one of ``BREAKS``.
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
BREAKS = ("overloaded_error", "api_error", "breaks", "ends", "silent", "pings")
"""An ``error`` event; a connection that breaks, a stream that ends, one that says no more, one that says nothing."""
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


def stream_of(body: dict[str, Any], size: int = 4) -> list[dict[str, Any]]:
    """The events of a message's stream, whose texts come in pieces of so many characters."""
    empty = {"text": "", "input": {}}
    begun = {**body, "content": [], "stop_reason": None, "usage": {**(body["usage"] or {}), "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(body["content"]):
        kind, member, whole = (
            ("text_delta", "text", block["text"])
            if block["type"] == "text"
            else ("input_json_delta", "partial_json", json.dumps(block["input"]))
        )
        start = {**block, **{name: value for name, value in empty.items() if name in block}}
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events.append({"type": "ping"})
        for at in range(0, len(whole), size):
            delta = {"type": kind, member: whole[at : at + size]}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    stopped = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": (body["usage"] or {}).get("output_tokens", 0)}
    return [*events, {"type": "message_delta", "delta": stopped, "usage": usage}, {"type": "message_stop"}]


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
    streams = True
    error = staticmethod(error)
    message = staticmethod(message)
    tool_use = staticmethod(tool_use)
    stream_of = staticmethod(stream_of)
    breaks = BREAKS

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

    def then_pause(self, body: dict[str, Any], events: int) -> asyncio.Event:
        """Answer the next request with so many events of a message's stream, and the rest once the event is set."""
        goes_on = asyncio.Event()

        async def behave(request: web.Request) -> web.StreamResponse:
            return await self._stream(request, stream_of(body), pause=(events, goes_on))

        self.behaviours.append(behave)
        return goes_on

    def then_step(self, body: dict[str, Any]) -> asyncio.Semaphore:
        """Answer the next request with a message's stream, an event each time that the semaphore is released."""
        steps = asyncio.Semaphore(0)

        async def behave(request: web.Request) -> web.StreamResponse:
            return await self._stream(request, stream_of(body), steps=steps)

        self.behaviours.append(behave)
        return steps

    def then_break(self, how: str, body: dict[str, Any], events: int) -> asyncio.Event:
        """Answer the next request with so many events of a message's stream, and then fail: by one of ``BREAKS``.

        Whoever clears the event that is returned says when it fails.
        """
        fails = asyncio.Event()
        fails.set()

        async def behave(request: web.Request) -> web.StreamResponse:
            return await self._stream(request, stream_of(body)[:events], how, (events, fails))

        self.behaviours.append(behave)
        return fails

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
        app.router.add_post("/v1/messages", self._answer)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            try:
                yield
            finally:
                self._released.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = await self._post(request)
        is_answer = isinstance(response, web.Response) and response.status == 200
        if not (is_answer and self.streams and (await request.json()).get("stream")):
            return response
        return await self._stream(request, stream_of(json.loads(response.body)))

    async def _stream(
        self,
        request: web.Request,
        events: list[dict[str, Any]],
        end: str = "",
        pause: tuple[int, asyncio.Event] | None = None,
        steps: asyncio.Semaphore | None = None,
    ) -> web.StreamResponse:
        """Events, and what becomes of the connection then."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, event in enumerate([*events, None]):
            if pause and number == pause[0]:
                await pause[1].wait()
            if event:
                if steps:
                    await steps.acquire()
                await self._send(response, event)
        if end.endswith("_error"):
            await self._send(response, {"type": "error", "error": {"type": end, "message": "on demand"}})
        elif end == "breaks":
            assert request.transport
            request.transport.abort()
        elif end == "silent":
            await self._released.wait()
        while end == "pings" and not self._released.is_set():
            await self._send(response, {"type": "ping"})
            await asyncio.sleep(0.02)
        return response

    async def _send(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    async def _post(self, request: web.Request) -> web.StreamResponse:
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
