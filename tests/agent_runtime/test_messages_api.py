"""The Messages API's answers as they come."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic._models import construct_type
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.providers.messages_api import answer_of
from supportfleet_runtime.agent.providers.tool_use import asked_again, tool_uses

TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"order": "A-1", "all": True}}
THINKING = {"type": "thinking", "thinking": "Which order?", "signature": "c2ln"}
NEWER = {"type": "something_newer", "of": [{"a": 1}]}
TEXT = {"type": "text", "text": "Yes, in green.", "citations": None}
USAGE = {
    "input_tokens": 412,
    "output_tokens": 24,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 7,
    "new_kind_of_tokens": 3,
}
ANSWER: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USAGE,
}


@pytest.mark.parametrize("content", [[], [TEXT], [TOOL_USE], [THINKING, TEXT], [NEWER, TOOL_USE, TEXT]])
def test_it_reads_as_the_sdk_reads_it(content: list[Any]) -> None:
    """An answer says what the SDK's own types of it say, and goes back to the service as they do."""
    said = {**ANSWER, "content": content}
    ours, theirs = answer_of(said), construct_type(type_=Message, value=said)
    assert isinstance(theirs, Message)
    assert (ours.model, ours.stop_reason) == (theirs.model, theirs.stop_reason)
    assert ours.usage is not None
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (412, 24)
    assert (ours.usage.cache_write_tokens, ours.usage.cache_read_tokens) == (5, 7)
    uses = tool_uses(ours)
    assert [use.arguments for use in uses] == [block.input for block in theirs.content if block.type == "tool_use"]
    echoed = asked_again(ours, [], [])[0]
    assert echoed["content"] == [block.to_dict(mode="json", warnings=False) for block in theirs.content]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("model", "stop_reason", "content", "usage", "type", "text", "input_tokens")


@given(st.one_of(JSON, st.dictionaries(st.sampled_from(FIELDS), JSON | st.just([TEXT]), max_size=6)))
def test_whatever_comes_can_be_read(said: Any) -> None:
    """No answer, however odd, is an error here, and one without content is no message."""
    answer = answer_of(said)
    assert (answer.content is None) == (not isinstance(said, dict) or not isinstance(said.get("content"), list))
    assert answer.model
    assert all(isinstance(block, dict) for block in answer.blocks("text"))
