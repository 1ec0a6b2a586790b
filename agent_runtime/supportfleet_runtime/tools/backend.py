"""What carries a call out: the tool desk in this process, or the tool service over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from supportfleet_runtime.tools.arguments import Arguments
from supportfleet_runtime.tools.catalogue import Tool
from supportfleet_runtime.tools.outcome import Outcome


@dataclass(frozen=True)
class ToolRequest:
    """A call with its authority. ``key`` is there for tools that change something."""

    tool: Tool
    arguments: Arguments
    customer_id: str
    conversation_id: str | None = None
    key: str | None = None


class Backend(Protocol):
    """Carries calls out. The same key is carried out once, however often it comes."""

    @property
    def available(self) -> bool:
        """Whether a call has a chance now."""
        ...

    async def perform(self, request: ToolRequest, *, within: float) -> Outcome:
        """Carry a call out; raises a ``ToolError`` that says what is known where there is no outcome."""
        ...

    async def effect(self, key: str, *, within: float) -> Outcome | None:
        """What came of the call with this key; ``None`` where none has come yet.

        Raises ``OutcomeUnknownError`` where that can't be told.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
