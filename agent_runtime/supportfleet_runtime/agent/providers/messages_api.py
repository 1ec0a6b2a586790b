"""A call of the Messages API by the SDK's ``post``, the way it documents for whatever it has no method for.

``messages.create`` copies the request part by part and builds its types of the answer field by field, which takes as
long as sending and receiving them. Here the request goes as the bytes it is, and the answer stays as it came: nothing
in it is checked but where it is read, and what is sent back to the service is what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import anthropic
import orjson
from anthropic.types.message_param import MessageParam
from anthropic.types.tool_param import ToolParam

from supportfleet_runtime.agent.pricing import Usage
from supportfleet_runtime.errors import ProviderError

PATH: Final = "/v1/messages"
JSON: Final = {"Content-Type": "application/json"}


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


async def create(client: anthropic.AsyncAnthropic, question: Question) -> Answer:
    """What the service answers.

    :raises anthropic.AnthropicError: as ``messages.create`` does.
    :raises ValueError: the answer is no JSON, or the request holds what JSON cannot.
    """
    content = question.content()
    return answer_of(await client.post(PATH, cast_to=object, content=content, options={"headers": JSON}))


async def stream(client: anthropic.AsyncAnthropic, question: Question) -> anthropic.AsyncStream[object]:
    """The events of what the service answers, as JSON; errors as of ``create``, and ``httpx2.RequestError``."""
    content = question.content(streams=True)
    events = anthropic.AsyncStream[object]
    return await client.post(
        PATH, cast_to=object, content=content, options={"headers": JSON}, stream=True, stream_cls=events
    )


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
