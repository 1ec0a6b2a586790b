"""Mirrored messages: worked as real ones, without any lasting effect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.escalations import Escalations
from supportfleet_runtime.gateway.mirroring import is_mirrored
from supportfleet_runtime.storage.schema import conversations, messages, tasks

SHADOW = {"Host": "customer-agent.example.com-shadow"}


@pytest.mark.parametrize(
    ("host", "mirrored"),
    [
        ("customer-agent.example.com-shadow", True),
        ("customer-agent.example.com-shadow:8080", True),
        ("[::1]:8080-shadow", True),
        ("CUSTOMER-AGENT-SHADOW", True),
        ("customer-agent.example.com", False),
        ("shadow", False),
        ("customer-shadow.example.com", False),
        ("customer-shadow.example.com:8080", False),
        ("agent-shadow\n", False),
        ("", False),
    ],
)
def test_hosts(host: str, *, mirrored: bool) -> None:
    """A copy is known by what Envoy puts after the host's name, before its port."""
    assert is_mirrored(host) is mirrored


@given(st.from_regex(r"[a-z0-9.-]{1,50}", fullmatch=True), st.integers(1, 65535))
def test_every_copy_is_known(name: str, port: int) -> None:
    """Whatever the original's host is, its copy is taken for one, and an original that is none of those is not."""
    assert is_mirrored(f"{name}-shadow")
    assert is_mirrored(f"{name}-shadow:{port}")
    assert is_mirrored(name) == name.endswith("-shadow")


async def mirror(agent: Any, text: str, status: int = 200, **members: Any) -> dict[str, Any]:
    """Send a copy of a message."""
    sent = {"customer_id": "cust-1001", "text": text, **members}
    async with agent.client.post("/v1/messages", json=sent, headers=SHADOW) as got:
        body: dict[str, Any] = json.loads(await got.text())
        assert got.status == status, body
        return body


async def rows(agent: Any) -> list[int]:
    """How much is stored."""
    counts = [select(func.count()).select_from(table) for table in (conversations, messages, tasks)]
    return [await agent.parts.database.read(lambda c, one=one: c.execute(one).scalar_one()) for one in counts]


async def test_it_is_answered_and_not_stored(start_agent: Any) -> None:
    """A copy gets the reply that a real message gets; there is no conversation, message or task of it."""
    agent = await start_agent()
    copy = await mirror(agent, "Where is my order A-1001?")
    assert await rows(agent) == [0, 0, 0]
    real = await agent.say("Where is my order A-1001?")
    assert {**copy, **dict.fromkeys(IDS)} == {**real, **dict.fromkeys(IDS)}
    async with agent.client.get(f"/v1/conversations/{copy['conversation_id']}") as got:
        assert got.status == 404


IDS = ("task_id", "conversation_id", "message_id", "latency_ms")


async def test_nobody_is_called(start_agent: Any) -> None:
    """A copy that asks for a person shows in the figures, and leaves its conversation as it was."""
    agent = await start_agent()
    first = await agent.say("hello")
    before = await rows(agent)
    copy = await mirror(agent, "I want to talk to a human", conversation_id=first["conversation_id"])
    assert copy["escalated"]
    assert await agent.metric("escalation_to_human_total") == 1
    assert await rows(agent) == before
    async with agent.client.get(f"/v1/conversations/{first['conversation_id']}") as got:
        assert (await got.json())["status"] == "open"


async def test_it_is_counted(start_agent: Any, messages_api: Any) -> None:
    """Requests, latency, fallbacks and tokens of copies are counted, so that an analysis can judge a canary by them."""
    agent = await start_agent(
        ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url, CLAUDE_RETRIES="0"
    )
    await mirror(agent, "Do your boots run small?")
    messages_api.then(lambda: messages_api.error(500))
    assert (await mirror(agent, "Do your socks run small?"))["source"] == "fallback"
    assert await agent.metric('agent_request_total{intent="other",status="200"}') == 2
    assert await agent.metric("agent_response_latency_seconds_count") == 2
    assert await agent.metric('agent_fallback_total{level="0"}') == 1
    assert await agent.metric('agent_fallback_total{level="4"}') == 1
    assert await agent.metric('agent_tokens_total{kind="output",model="claude-haiku-5-5"}') == 7
    assert await agent.metric('agent_cost_usd_total{model="claude-haiku-5-5"}') == pytest.approx(5.6e-6)


async def test_a_conversation_is_seen_as_it_stands(start_agent: Any, messages_api: Any) -> None:
    """A copy continues the question that was asked, and is shown the turns before it, but changes neither."""
    agent = await start_agent(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url)
    asked = await agent.say("where is my order?")
    conversation = asked["conversation_id"]
    for _ in range(2):
        assert "DHL" in (await mirror(agent, "A-1001", conversation_id=conversation))["reply"]
    assert "DHL" in (await agent.say("A-1001", conversation_id=conversation))["reply"]
    await mirror(agent, "Do your boots run small?", conversation_id=conversation)
    said = [one["content"] for one in messages_api.requests[-1]["messages"]]
    assert said[0] == "where is my order?"
    assert [said[2], said[-1]] == ["A-1001", "Do your boots run small?"]


async def test_what_is_not_answered_yet_is_left_out(start_agent: Any, messages_api: Any) -> None:
    """The original of a copy is under way when the copy is worked: the model sees the message once."""
    agent = await start_agent(
        ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url, API_TIMEOUT_SECONDS="0.5"
    )
    first = await agent.say("hello")
    conversation = first["conversation_id"]
    messages_api.behaviours.append(messages_api.hang)
    original = {"customer_id": "cust-1001", "text": "Do your boots run small?", "conversation_id": conversation}
    async with agent.client.post("/v1/messages", json=original) as got:
        assert got.status == 202
    await mirror(agent, "Do your boots run small?", conversation_id=conversation)
    said = [one["content"] for one in messages_api.requests[-1]["messages"]]
    assert said == ["hello", first["reply"], "Do your boots run small?"]


async def test_a_persons_words_are_seen(start_agent: Any, messages_api: Any) -> None:
    """A copy is shown what a person has written to the customer, as the original is."""
    agent = await start_agent(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url)
    first = await agent.say("I want to talk to a human")
    people = Escalations(agent.parts.database, agent.parts.settings.scope, now=utc_now)
    (call,) = await people.latest(1)
    await people.claim(call.escalation_id, "bea")
    await people.reply(call.escalation_id, "bea", "It is on its way to you.")
    conversation = first["conversation_id"]
    await mirror(agent, "Do your boots run small?", conversation_id=conversation)
    await agent.say("Do your boots run small?", conversation_id=conversation)
    copy, original = ([one["content"] for one in request["messages"]] for request in messages_api.requests[-2:])
    assert copy == original
    assert copy[1].endswith("It is on its way to you.")


async def test_another_customers_conversation(start_agent: Any) -> None:
    """A copy reaches no more than a real message would."""
    agent = await start_agent()
    first = await agent.say("hello")
    await mirror(agent, "hello", status=404, customer_id="cust-2", conversation_id=first["conversation_id"])
    await mirror(agent, "hello", status=422, customer_id="")


async def test_one_that_takes_too_long(start_agent: Any, messages_api: Any) -> None:
    """A copy that is not answered in time fails: there is no task that could be asked for."""
    agent = await start_agent(
        ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url, API_TIMEOUT_SECONDS="0.2"
    )
    messages_api.behaviours.append(messages_api.hang)
    await mirror(agent, "Do your boots run small?", status=503)
    assert await rows(agent) == [0, 0, 0]
