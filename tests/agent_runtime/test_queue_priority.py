from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from supportfleet_runtime.queue.sql import LEAD
from supportfleet_runtime.storage.schema import tasks

MESSAGE = {"customer_id": "cust-1001", "text": "hello"}


async def leads(agent: Any) -> list[timedelta]:
    """By how much each task was due before it came, the oldest first, as it was accepted."""
    query = select(tasks.c.created_at, tasks.c.visible_at).order_by(tasks.c.created_at, tasks.c.id)
    rows = await agent.parts.database.read(lambda connection: connection.execute(query).all())
    return [row.created_at - row.visible_at for row in rows]


async def waiting(start_agent: Any) -> Any:
    """An agent that takes messages in and works none: its model is missing."""
    agent = await start_agent(until_ready=False, MODEL_DIGEST="sha256:" + "a" * 64, API_TIMEOUT_SECONDS="0")
    async with asyncio.timeout(30):
        while agent.parts.progress.schema is not None:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
    return agent


async def post(agent: Any, **members: Any) -> dict[str, Any]:
    async with agent.client.post("/v1/messages", json={**MESSAGE, **members}) as got:
        body: dict[str, Any] = await got.json(content_type=None)
        return {**body, "http": got.status}


@pytest.fixture
async def idle(start_agent: Any) -> Any:
    return await waiting(start_agent)


async def test_a_caller_says_so(idle: Any) -> None:
    """A message that is sent with high priority is due ahead of its time; any other is not."""
    assert (await post(idle, priority="high"))["http"] == 202
    assert (await post(idle, priority="normal"))["http"] == 202
    assert (await leads(idle))[-2:] == [LEAD, timedelta()]


@pytest.mark.parametrize("given", ["urgent", "", 1, None])
async def test_other_priorities_are_refused(idle: Any, given: Any) -> None:
    """There are two; anything else is an error that names the field."""
    refused = await post(idle, priority=given)
    assert (refused["http"], refused["errors"][0]["pointer"]) == (422, "#/priority")


async def test_who_waits_for_a_person_goes_first(start_agent: Any) -> None:
    """From the message after the one that called a person on, a conversation's messages are urgent by themselves."""
    agent = await start_agent()
    called = await agent.say("I want to talk to a human")
    assert called["escalated"]
    await agent.parts.worker.stop(5)
    idle = await waiting(start_agent)
    assert (await post(idle, conversation_id=called["conversation_id"]))["http"] == 202
    assert (await leads(idle))[-1] == LEAD
