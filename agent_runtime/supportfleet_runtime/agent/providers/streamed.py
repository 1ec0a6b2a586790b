"""The Messages API's streams, as values: an answer as its events make it. Pure.

A stream is a call like any other: unless it comes to its end (``message_stop``) there is no answer, however much of it
was there. What the service had counted by then is in ``so_far`` nevertheless.
"""

from __future__ import annotations

from typing import Any

import orjson

from supportfleet_runtime.agent.providers.messages_api import Answer, answer_of
from supportfleet_runtime.errors import ProviderError


class StreamedAnswer:
    """An answer that is coming in."""

    def __init__(self) -> None:
        self.is_whole = False
        self._said: Any = None
        self._arguments: dict[int, str] = {}

    @property
    def so_far(self) -> Answer:
        """As much of it as there is."""
        return answer_of(self._said)

    def take(self, event: Any) -> None:
        """Take the next event. Kinds that are not known are passed over: the API may add some."""
        try:
            self._take(event["type"], event)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ProviderError("malformed", "an event is not as documented") from error

    def whole(self) -> Answer:
        """The answer, once it has come to its end."""
        if self._said is None:
            raise ProviderError("malformed", "the stream holds no message")
        if not self.is_whole:
            raise ProviderError("unreachable", "the stream ended before the message did", retryable=True)
        return self.so_far

    def _take(self, kind: object, event: Any) -> None:
        if kind == "message_start":
            self._said = event["message"] | {}
        elif self._said is None:
            return
        elif kind == "content_block_start":
            self._said["content"].append(event["content_block"])
        elif kind == "content_block_delta":
            self._grow(event["index"], event["delta"])
        elif kind == "content_block_stop":
            self._stop(event["index"])
        elif kind == "message_delta":
            self._said |= event["delta"]
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self.is_whole = True

    def _grow(self, index: int, delta: Any) -> None:
        block = self._said["content"][index]
        if delta["type"] == "text_delta":
            block["text"] += delta["text"]
        elif delta["type"] == "input_json_delta":
            self._arguments[index] = self._arguments.get(index, "") + delta["partial_json"]
        elif delta["type"] == "thinking_delta":
            block["thinking"] += delta["thinking"]
        elif delta["type"] == "signature_delta":
            block["signature"] = delta["signature"]

    def _stop(self, index: int) -> None:
        """A block is complete: a tool's arguments can be read; cut off, they stay a text, which no tool takes."""
        if text := self._arguments.pop(index, ""):
            try:
                self._said["content"][index]["input"] = orjson.loads(text)
            except orjson.JSONDecodeError:
                self._said["content"][index]["input"] = text

    def _count(self, later: Any) -> None:
        """The counts of ``message_delta`` are totals, and replace the earlier ones; those that it lacks stay."""
        if isinstance(self._said.get("usage"), dict) and isinstance(later, dict):
            self._said["usage"] |= {name: value for name, value in later.items() if value is not None}
