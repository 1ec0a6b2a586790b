"""The Messages API: the SDK says where it is, with which headers, over which HTTP client, and reads its streams.

``messages.create`` copies the request part by part, builds it anew from the client's options each time, and builds its
types of the answer field by field; all that takes four times as long as sending and receiving. Here the request goes as
the bytes it is, and the answer stays as it came: nothing in it is checked but where it is read, and what is sent back
to the service is what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import anthropic
import httpx2
import orjson
from anthropic.types.message_param import MessageParam
from anthropic.types.tool_param import ToolParam

from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.errors import ProviderError

PATH: Final = "v1/messages"
JSON: Final = {"Content-Type": "application/json"}
UNREACHABLE: Final = (anthropic.APIConnectionError, httpx2.RequestError, aiohttp.ClientError, OSError)
"""What is raised where no answer came, or not all of it."""


@dataclass(frozen=True)
class Answer:
    """A message of the service: blocks of content, of whatever types there are by now."""

    content: Sequence[Any] | None
    """None where the service sent none, and so no message."""
    model: str
    stop_reason: object
    usage: Usage | None
    """What the service says the call took; None where it says nothing."""

    @property
    def text(self) -> str:
        """What it says, without what a database can't store. How an answer's beginning reads, all of it begins."""
        texts = [block.get("text") for block in self.blocks("text")]
        text = "".join(text for text in texts if isinstance(text, str)).replace("\x00", "").strip()
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half a character: JSON can write it, and nothing can store it
            raise ProviderError("malformed", "the answer is no text") from error
        return text

    def blocks(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """The blocks of one type."""
        return [block for block in self.content or () if isinstance(block, dict) and block.get("type") == kind]


@dataclass(frozen=True)
class Question:
    """What the service is asked."""

    model: str
    max_tokens: int
    system: str
    messages: Sequence[MessageParam]
    tools: Sequence[ToolParam]

    def content(self, *, streams: bool = False) -> bytes:
        """The request's body. ``ValueError`` where it holds what JSON cannot."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "messages": self.messages,
        }
        if self.tools:
            body["tools"] = self.tools
        if streams:
            body["stream"] = True
        try:
            return orjson.dumps(body)
        except TypeError as error:  # orjson's own: half a surrogate pair, for one
            raise ValueError(str(error)) from error


class MessagesApi:
    """The service at ``base_url``. Nothing is tried again here; ``timeout`` is in seconds, for each step of a call."""

    def __init__(self, api_key: str, base_url: str, timeout: float) -> None:
        # aiohttp, which the runtime has loaded anyway, takes half the time for a call that the SDK's default takes.
        self._http = anthropic.DefaultAioHttpClient(timeout=timeout)
        self._sdk = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            http_client=self._http,
            # The call has a span of ours; the SDK's would cost time, and an environment variable would put what
            # customers write into it.
            open_telemetry={"traces": False, "propagation": False},
        )
        base = self._sdk.base_url
        self._url = base.copy_with(raw_path=base.raw_path + PATH.encode())
        self._headers = httpx2.Headers()
        for name, value in (self._sdk.default_headers | JSON).items():
            if isinstance(value, str):  # else it is to be left out
                self._headers[name] = value

    async def create(self, question: Question) -> Answer:
        """What the service answers.

        :raises anthropic.APIStatusError: it refuses.
        :raises ValueError: the answer is no JSON, or the request holds what JSON cannot.

        One of ``UNREACHABLE`` where no answer came.
        """
        response = await self._http.post(self._url, content=question.content(), headers=self._headers)
        if not response.is_success:
            raise anthropic.APIStatusError(f"HTTP {response.status_code}", response=response, body=None)
        return answer_of(orjson.loads(response.content))

    async def stream(self, question: Question) -> anthropic.AsyncStream[object]:
        """The events of what the service answers, as JSON; errors as of ``create``, here and while they are read."""
        return await self._sdk.post(
            PATH,
            cast_to=object,
            content=question.content(streams=True),
            options={"headers": JSON},
            stream=True,
            stream_cls=anthropic.AsyncStream[object],
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()


def answer_of(said: object) -> Answer:
    """An answer's JSON. Pure."""
    found = said if isinstance(said, dict) else {}
    content, named, usage = found.get("content"), found.get("model"), found.get("usage")
    model = named if isinstance(named, str) and named else "unknown"
    return Answer(
        content if isinstance(content, list) else None,
        model,
        found.get("stop_reason"),
        _usage(model, usage) if isinstance(usage, dict) else None,
    )


def _usage(model: str, told: Mapping[str, Any]) -> Usage:
    def tokens(field: str) -> int:
        value = told.get(field)
        return value if isinstance(value, int) and value >= 0 else 0

    return Usage(
        model,
        tokens("input_tokens"),
        tokens("output_tokens"),
        tokens("cache_creation_input_tokens"),
        tokens("cache_read_input_tokens"),
    )
