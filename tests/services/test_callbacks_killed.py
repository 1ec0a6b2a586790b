"""Callbacks when their process is killed: real processes on a real PostgreSQL, and a real receiver."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

UNIT = Path(__file__).parents[1] / "agent_runtime"
receiving = runpy.run_path(str(UNIT / "webhook_receiver.py"))
LEASE = 5


@pytest.fixture
async def receiver() -> AsyncIterator[Any]:
    made = receiving["Receiver"]()
    async with made.serving():
        yield made


@pytest.fixture
async def start(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Start a pod; each process, and the address that it listens on. Those that still run at the end are killed."""
    processes: list[asyncio.subprocess.Process] = []

    async def start() -> tuple[asyncio.subprocess.Process, str]:
        environ = {
            **os.environ,
            "API_HOST": "127.0.0.1",
            "API_PORT": "0",
            "DATABASE_URL": database_url,
            "CONFIG_DIR": str(tmp_path),
            "MODEL_DIR": str(tmp_path),
            "WEBHOOK_SECRET": receiving["SECRET"],
            "WEBHOOK_ALLOWED": "127.0.0.1",
            "QUEUE_VISIBILITY": str(LEASE),
        }
        command = (sys.executable, "-m", "supportfleet_runtime", "serve")
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
        )
        processes.append(process)
        return process, await ready(process)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process: asyncio.subprocess.Process) -> str:
    assert process.stderr
    async with asyncio.timeout(60):
        url = ""
        async for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "listening":
                url = f"http://{event['addresses'][0]}"
            if event["event"] == "ready" and url:
                return url
    raise AssertionError("it ended before it was ready")


async def test_a_killed_delivery_is_made_again(start: Any, receiver: Any) -> None:
    """A pod that is killed while it delivers loses nothing: another one does, under the same webhook-id."""
    receiver.behaviours.append(receiving["hang"])
    first, url = await start()
    async with ClientSession() as session:
        body = {"customer_id": "cust-1001", "text": "hello", "callback": {"webhook": {"url": receiver.url}}}
        async with session.post(f"{url}/v1/messages", json=body) as got:
            assert got.status == 200
            task_id = (await got.json())["task_id"]
        await asyncio.wait_for(receiver.arrived.wait(), 30)
        first.kill()
        await first.wait()
        _, other = await start()
        async with asyncio.timeout(60):
            address = f"{other}/v1/tasks/{task_id}"
            while (task := await told(session, address))["callback"]["state"] != "delivered":  # noqa: ASYNC110 - as callers do
                await asyncio.sleep(0.05)
    assert task["callback"]["tries"] == 2
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    assert receiver.verified(1)["data"]["task_id"] == task_id


async def told(session: ClientSession, url: str) -> Any:
    async with session.get(url) as got:
        return await got.json()
