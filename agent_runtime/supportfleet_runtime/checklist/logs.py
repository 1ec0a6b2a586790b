"""Logging: an agent that is started here logs JSON lines, and nothing of what a customer wrote or who they are.

It answers, refuses and fails to parse messages that hold marks, at the most talkative level; the log is then searched
for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from supportfleet_runtime import config
from supportfleet_runtime.app import PARTS, build
from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome, judged
from supportfleet_runtime.checklist.subject import Subject
from supportfleet_runtime.gateway.server import make_runner
from supportfleet_runtime.observability.logs import configure_logging

START_SECONDS: Final = 30.0
CALL_SECONDS: Final = 30.0


async def check(subject: Subject) -> Outcome:
    """Let an agent talk, and read its log."""
    marks = {name: f"{name.replace(' ', '-')}-{secrets.token_hex(8)}" for name in ("text", "customer", "API key")}
    stream = io.StringIO()
    level = subject.settings.log_level
    try:
        configure_logging("debug", stream)
        with tempfile.TemporaryDirectory(prefix="supportfleet-checklist-") as folder:
            async with _agent(Path(folder), marks["API key"]) as url:
                await _talk(url, marks)
    finally:
        configure_logging(level)
    return judged(problems(stream.getvalue(), marks), "an agent's log is JSON lines without texts, customers or keys")


def problems(log: str, marks: Mapping[str, str]) -> list[str]:
    """What is wrong with a log that must hold none of the marks. Pure."""
    lines = log.splitlines()
    found = [
        f"a line of the log is no JSON object with an event: line {n}" for n, it in enumerate(lines, 1) if not _ok(it)
    ]
    if not any('"message_answered"' in line for line in lines):
        found.append("the answered message is not in the log")
    return found + [f"the log holds the {name} of a message" for name, mark in marks.items() if mark in log]


def _ok(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and {"event", "level", "timestamp"} <= event.keys()


@contextlib.asynccontextmanager
async def _agent(folder: Path, key: str) -> AsyncIterator[str]:
    """An agent of its own: in a temporary folder, on a loopback port, without a language model."""
    environ = {
        "API_KEYS": key,
        "DATABASE_URL": f"sqlite:///{folder}/checklist.db",
        "CONFIG_DIR": str(folder),
        "MODEL_DIR": str(folder),
        "LLM_PROVIDER": "scripted",
        "LOG_LEVEL": "debug",
    }
    app = build(config.load(environ))
    runner = make_runner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await asyncio.wait_for(app[PARTS].progress.ready.wait(), START_SECONDS)
        except TimeoutError as error:
            raise NotCheckableError(f"an agent with SQLite was not ready within {START_SECONDS:g} s") from error
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _talk(url: str, marks: Mapping[str, str]) -> None:
    key = {"X-API-Key": marks["API key"]}
    message = {"customer_id": marks["customer"], "text": f"hello {marks['text']}"}
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for headers, body in (
            (key, json.dumps(message)),
            (key, json.dumps({**message, "conversation_id": marks["text"]})),
            (key, json.dumps({**message, "text": [marks["text"]]})),
            (key, f"{{{marks['text']}"),
            ({"X-API-Key": f"{marks['API key']}x"}, json.dumps(message)),
        ):
            sent = {**headers, "Content-Type": "application/json"}
            async with session.post(f"{url}/v1/messages", headers=sent, data=body) as response:
                await response.read()
