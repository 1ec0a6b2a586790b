"""Event streams across pods that share a PostgreSQL: changes are heard by signals, with looking switched off."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

UNIT = Path(__file__).parents[1] / "agent_runtime"
unit = runpy.run_path(str(UNIT / "test_events.py"))
TestStreams = unit["TestStreams"]
TestRefusals = unit["TestRefusals"]


async def test_who_watches_in_another_pod_is_told_at_once(start_agent: Any) -> None:
    """A reply that one pod stores reaches a stream of another by its signal alone."""
    working = await start_agent()
    watching = await start_agent(until_ready=False, MODEL_DIGEST=unit["DIGEST"])
    watching.parts.watching._poll = 3600
    async with asyncio.timeout(20):
        while watching.parts.progress.schema is not None:  # noqa: ASYNC110 - a field of the process
            await asyncio.sleep(0.01)
    conversation = (await working.say("hello"))["conversation_id"]
    async with unit["stream"](watching, conversation) as events:
        await events.next("ready")
        async with asyncio.timeout(20):
            while not working.parts.watching._elsewhere:  # noqa: ASYNC110 - what it has heard so far
                await asyncio.sleep(0.01)
        said = await working.say("Where is my order A-1001?", conversation_id=conversation)
        assert (await events.next("reply")).data["reply"] == said["reply"]
