"""Revisions that share PostgreSQL: each works its own messages, and those of one that goes are the others'."""

from __future__ import annotations

import asyncio
import runpy
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text

_serve = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_serve.py"))
start = _serve["start"]

MESSAGES = 8


@pytest.fixture
def revision(start: Any, database_url: str, messages_api: Any) -> Any:
    """Start a pod of a revision. Its language model is the stand-in's, or none."""

    async def run(name: str, *, with_model: bool, **environ: str) -> Any:
        model = {"ANTHROPIC_API_KEY": messages_api.key, "ANTHROPIC_BASE_URL": messages_api.url} if with_model else {}
        process = await start(DATABASE_URL=database_url, AGENT_REVISION=name, **model, **environ)
        await process.until(process.ready)
        return process

    return run


async def answered(process: Any, task_id: str) -> dict[str, Any] | None:
    """A task's record, once it is done."""
    async with process.session.get(f"{process.url}/v1/tasks/{task_id}") as got:
        task: dict[str, Any] = await got.json()
    return task if task["status"] == "done" else None


async def hold(messages_api: Any, process: Any) -> list[str]:
    """Messages that the process accepts and can't answer: their tasks."""
    messages_api.behaviours += [messages_api.hang] * MESSAGES
    tasks = []
    for _ in range(MESSAGES):
        status, got = await process.post("Do your boots run small?")
        assert status == 202
        tasks.append(got["task_id"])
    await process.until(lambda: messages_api.attempts == MESSAGES)
    return tasks


async def all_are_answered_once(process: Any, database: Any, tasks: list[str]) -> None:
    done = [await process.until(lambda task=task: answered(process, task)) for task in tasks]
    assert {task["model"] for task in done} == {"scripted"}, "the other revision answered"
    count = text("SELECT count(*) FROM messages WHERE role = 'agent'")
    assert await database.read(lambda connection: connection.execute(count).scalar_one()) == len(tasks)


async def test_a_revision_works_its_own_messages(revision: Any) -> None:
    """While both revisions run, what is sent to one is answered by that one, though the other is idle."""
    stable = await revision("stable", with_model=False)
    canary = await revision("canary", with_model=True)
    for _ in range(10):
        _, got = await canary.post("Do your boots run small?")
        assert got["reply"] == "An answer from the model."
        _, got = await stable.post("Do your boots run small?")
        assert got["model"] == "scripted"


async def test_a_drained_revision_hands_over(revision: Any, messages_api: Any, database: Any) -> None:
    """What a pod still holds when it has to go is answered, once, by a pod of another revision."""
    canary = await revision("canary", with_model=True, API_TIMEOUT_SECONDS="0")
    stable = await revision("stable", with_model=False)
    tasks = await hold(messages_api, canary)
    assert await canary.end(signal.SIGTERM) == 0
    assert "leases_released" in [event["event"] for event in canary.events]
    await all_are_answered_once(stable, database, tasks)


async def test_a_killed_revision_is_taken_over(revision: Any, messages_api: Any, database: Any) -> None:
    """The same for a pod that vanishes with its node, once its leases have run out."""
    canary = await revision("canary", with_model=True, API_TIMEOUT_SECONDS="0", QUEUE_VISIBILITY="5")
    stable = await revision("stable", with_model=False)
    tasks = await hold(messages_api, canary)
    assert await canary.end(signal.SIGKILL) == -signal.SIGKILL
    await all_are_answered_once(stable, database, tasks)


async def test_who_waits_is_answered_while_its_pod_drains(revision: Any, messages_api: Any) -> None:
    """A customer whose request is under way when its pod has to go gets the answer of that pod."""
    canary = await revision("canary", with_model=True)
    await revision("stable", with_model=False)
    release = asyncio.Event()

    async def slow(_request: Any) -> Any:
        await release.wait()
        return web.json_response(messages_api.message("At last."))

    messages_api.behaviours.append(slow)
    asking = asyncio.create_task(canary.post("Do your boots run small?"))
    await canary.until(lambda: messages_api.attempts == 1)
    canary.running.send_signal(signal.SIGTERM)
    await canary.until(lambda: "draining" in [event["event"] for event in canary.events])
    release.set()
    status, got = await asking
    assert (status, got["reply"]) == (200, "At last.")
    assert await canary.end() == 0
