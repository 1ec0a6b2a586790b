"""The Messages API's tool use, as values: what a message asks for, and what is sent back. Pure.

Nothing in what the service says is taken for granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from anthropic.types.message_param import MessageParam
from anthropic.types.tool_param import ToolParam
from anthropic.types.tool_result_block_param import ToolResultBlockParam
from anthropic.types.user_message_param import UserMessageParam

from supportfleet_runtime.agent.providers.messages_api import Answer
from supportfleet_runtime.agent.toolbox import ToolResult, ToolSpec, ToolStatus
from supportfleet_runtime.errors import ProviderError

TOOL_USE: Final = "tool_use"
ERRORS: Final = frozenset({ToolStatus.INVALID, ToolStatus.NOT_CARRIED_OUT})


@dataclass(frozen=True)
class ToolUse:
    """A call that the model asks for."""

    id: str
    name: str
    arguments: Mapping[str, Any]


def tool_param(spec: ToolSpec) -> ToolParam:
    """A tool as the API is told of it."""
    return ToolParam(name=spec.name, description=spec.description, input_schema=dict(spec.input_schema))


def tool_uses(message: Answer) -> Sequence[ToolUse]:
    """The calls that a message asks for; none where it is an answer, or was cut off in the middle of asking."""
    if message.stop_reason != TOOL_USE:
        return ()
    return [_tool_use(block) for block in message.blocks(TOOL_USE)]


def asked_again(message: Answer, uses: Sequence[ToolUse], results: Sequence[ToolResult]) -> list[MessageParam]:
    """What is added to the conversation: the model's own message, and the results of its calls in one."""
    echoed = [block for block in message.content or () if _is_kept(block)]
    blocks = [
        ToolResultBlockParam(
            type="tool_result", tool_use_id=use.id, content=result.as_text(), is_error=result.status in ERRORS
        )
        for use, result in zip(uses, results, strict=True)
    ]
    return [
        cast("MessageParam", {"role": "assistant", "content": echoed}),
        UserMessageParam(role="user", content=blocks),
    ]


def _tool_use(block: Mapping[str, Any]) -> ToolUse:
    id_, name, arguments = block.get("id"), block.get("name"), block.get("input")
    if not (isinstance(id_, str) and id_ and isinstance(name, str) and isinstance(arguments, dict)):
        raise ProviderError("malformed", "a tool's call has no id, name or arguments")
    return ToolUse(id_, name, arguments)


def _is_kept(block: object) -> bool:
    """Empty texts, which the API refuses, are left out."""
    return isinstance(block, dict) and (block.get("type") != "text" or bool(str(block.get("text") or "").strip()))
