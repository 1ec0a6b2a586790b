"""What the agent needs of tools: the port that ``supportfleet_runtime.tools`` implements, and one message's use of it.

Authority is not the model's to give: a call carries the customer of the conversation it was made in, set here from the
turn. What the model says decides which tool and about what, never for whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, get_args

import orjson

from supportfleet_runtime.errors import ProviderError
from supportfleet_runtime.observability.tracing import Field, Kind, span

MAX_CALLS: Final = 3
"""Tool calls for one message, whatever is configured and however many the model asks for at once."""
MAX_RESULT_CHARACTERS: Final = 6000

ToolName = Literal["order_lookup", "detailed_history", "refund", "create_ticket", "address_change", "password_reset"]


class ToolStatus(StrEnum):
    """How a call ended."""

    DONE = "done"
    NOT_FOUND = "not_found"
    """No such order, or another customer's: the two are told apart to nobody."""
    REFUSED = "refused"
    NEEDS_APPROVAL = "needs_approval"
    """Nothing was done; a person decides."""
    AMBIGUOUS = "ambiguous"
    """Nobody knows whether it was done; a person finds out."""
    INVALID = "invalid"
    """No such tool, or arguments that are not as it wants them."""
    NOT_CARRIED_OUT = "not_carried_out"
    """The message is a copy of another, or there were too many calls."""


@dataclass(frozen=True)
class Authority:
    """On whose behalf, and for which message, tools are used."""

    customer_id: str
    task_id: str
    conversation_id: str
    may_change: bool = True
    """False for the copy of a message: nothing may last of it."""


@dataclass(frozen=True)
class ToolSpec:
    """A tool as a language model is told of it."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """What came of a call. ``message`` may be shown to the customer; ``data`` is for the model."""

    tool: str
    status: ToolStatus
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
    changes: bool = False
    """Whether the tool is one that changes something."""
    needs_person: bool = False

    def as_text(self) -> str:
        """What the model is shown, never longer than it should be."""
        shown = {"status": self.status.value, "message": self.message, **({"data": self.data} if self.data else {})}
        text = orjson.dumps(shown, default=str).decode()
        return text if len(text) <= MAX_RESULT_CHARACTERS else f"{text[:MAX_RESULT_CHARACTERS]}… (cut off)"


class Toolbox(Protocol):
    """Tools, wherever they work."""

    @property
    def available(self) -> bool:
        """Whether a call has a chance now."""
        ...

    def specs(self) -> Sequence[ToolSpec]:
        """The tools that are enabled."""
        ...

    async def call(self, name: str, arguments: Mapping[str, Any], authority: Authority, *, within: float) -> ToolResult:
        """Use a tool once; raises ``ProviderError`` (``tools_unavailable``) where that was not to be had."""
        ...

    async def earlier(self, authority: Authority, *, within: float) -> Sequence[ToolResult]:
        """What an earlier attempt at the same message changed, or may have."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ToolSession:
    """One message's use of the tools: bounded, with one customer's authority, and remembered."""

    def __init__(self, toolbox: Toolbox, authority: Authority, *, limit: int = MAX_CALLS) -> None:
        self._toolbox = toolbox
        self._authority = authority
        self.left = min(limit, MAX_CALLS)
        """Calls the message may still have."""
        self.specs: Sequence[ToolSpec] = toolbox.specs() if self.left else ()
        self.results: list[ToolResult] = []

    @property
    def available(self) -> bool:
        """Whether the tools are to be had now."""
        return self._toolbox.available

    @property
    def is_spent(self) -> bool:
        """Whether the message had all the calls it may have."""
        return self.left <= 0

    @property
    def needs_person(self) -> bool:
        """Whether a call ended in such a way that a person is called."""
        return any(result.needs_person for result in self.results)

    @property
    def changes(self) -> Sequence[ToolResult]:
        """The results that the customer must be told, whoever answers: of what changes something, or may have."""
        return [result for result in self.results if result.changes and result.status in _TOLD]

    async def recall(self, *, within: float) -> None:
        """Take up what an earlier attempt at the message did."""
        self.results += await self._toolbox.earlier(self._authority, within=within)

    async def call(self, name: str, arguments: Mapping[str, Any], *, within: float) -> ToolResult:
        """Use a tool, if there is a call left."""
        if self.is_spent:
            return ToolResult(name, ToolStatus.NOT_CARRIED_OUT, "No more tool calls are allowed for this message.")
        self.left -= 1
        known = name if name in get_args(ToolName) else "unknown"  # the model may write anything there
        with span("tool call", {Field.TOOL: known}, kind=Kind.CLIENT) as calling:
            result = await self._toolbox.call(name, arguments, self._authority, within=within)
            calling.note(Field.OUTCOME, result.status.value)
        self.results.append(result)
        return result


_TOLD: Final = frozenset({ToolStatus.DONE, ToolStatus.AMBIGUOUS, ToolStatus.NEEDS_APPROVAL})


def unavailable(detail: str) -> ProviderError:
    """Tools can't be had: the model is asked without them."""
    return ProviderError("tools_unavailable", detail)
