from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

COMMAND = (sys.executable, "-m", "supportfleet_runtime")


@dataclass
class Process:
    """The runtime as a process of its own."""

    running: asyncio.subprocess.Process
    session: ClientSession
    events: list[dict[str, Any]] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None
    url: str = ""

    async def follow(self) -> None:
        """Read the log; the address it listens on is in it."""
        assert self.running.stderr
        async for line in self.running.stderr:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "listening":
                self.url = f"http://{event['addresses'][0]}"

    async def until(self, condition: Callable[[], Awaitable[Any] | Any], seconds: float = 60) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                value = condition()
                if isinstance(value, Awaitable):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.02)

    async def ready(self) -> bool:
        if not self.url:
            return False
        with contextlib.suppress(ClientError):
            async with self.session.get(f"{self.url}/readyz") as got:
                return got.status == 200
        return False

    async def post(self, text: str) -> tuple[int, dict[str, Any]]:
        body = {"customer_id": "cust-1001", "text": text}
        async with self.session.post(f"{self.url}/v1/messages", json=body) as got:
            return got.status, await got.json(content_type=None)

    async def end(self, number: int | None = None) -> int:
        """Send a signal and wait for the end; the exit code."""
        if number is not None:
            self.running.send_signal(number)
        code = await asyncio.wait_for(self.running.wait(), 60)
        if self.reader:
            await self.reader
        return code


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Start processes; whatever still runs at the end is killed."""
    processes: list[Process] = []
    async with ClientSession() as session:

        async def start(*arguments: str, folder: Path = tmp_path, **environ: str) -> Process:
            running = await asyncio.create_subprocess_exec(
                *COMMAND,
                *(arguments or ("serve",)),
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "API_HOST": "127.0.0.1",
                    "API_PORT": "0",
                    "DATABASE_URL": f"sqlite:///{tmp_path}/x.db",
                    "CONFIG_DIR": str(tmp_path),
                    **environ,
                },
                stderr=asyncio.subprocess.PIPE,
            )
            process = Process(running, session)
            process.reader = asyncio.create_task(process.follow())
            processes.append(process)
            return process

        yield start
        for process in processes:
            if process.running.returncode is None:
                process.running.kill()
            await process.end()


async def test_it_starts_answers_and_ends(start: Any) -> None:
    """Started with next to nothing it becomes ready, answers, and ends with 0 on SIGTERM."""
    process = await start()
    await process.until(process.ready)
    status, got = await process.post("Where is my order A-1001?")
    assert status == 200
    assert "DHL" in got["reply"]
    assert await process.end(signal.SIGTERM) == 0
    assert [event["event"] for event in process.events][-2:] == ["draining", "stopped"]


async def test_it_runs_with_nothing_configured(start: Any, tmp_path: Path) -> None:
    """Without DATABASE_URL the data goes where it can be written, and the log says where."""
    process = await start(DATABASE_URL="")
    await process.until(process.ready)
    (told,) = [event for event in process.events if event["event"] == "database_defaulted"]
    assert Path(told["path"]).name == "supportfleet.db"
    assert await process.end(signal.SIGINT) == 0
    assert (tmp_path / told["path"]).is_file()


async def test_it_says_that_it_is_one_process(start: Any) -> None:
    """Where more are asked for it serves all the same, and the log says what to set instead."""
    process = await start(API_WORKERS="4")
    await process.until(process.ready)
    (told,) = [event for event in process.events if event["event"] == "one_process_only"]
    assert "spec.replicas" in told["remedy"]


async def test_sigterm_drains(start: Any, messages_api: Any) -> None:
    """A request that waits when SIGTERM comes is answered; new connections are not taken."""
    process = await start(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url)
    await process.until(process.ready)
    release = asyncio.Event()

    async def slow(request: Any) -> Any:
        await release.wait()
        return messages_api.error(400)

    messages_api.behaviours += [slow, slow]  # with tools, then without
    asking = asyncio.create_task(process.post("boots?"))
    await process.until(lambda: messages_api.attempts == 1)
    process.running.send_signal(signal.SIGTERM)
    await process.until(lambda: "draining" in [event["event"] for event in process.events])
    await process.until(lambda: _refuses(process.url))
    release.set()
    status, got = await asking
    assert (status, got["source"]) == (200, "fallback")
    assert await process.end() == 0


async def test_kill_9_loses_nothing(start: Any, messages_api: Any) -> None:
    """A message that was accepted is answered by the next process, though the first was killed in the middle."""
    environ = {
        "ANTHROPIC_API_KEY": messages_api.key,
        "ANTHROPIC_BASE_URL": messages_api.url,
        "API_TIMEOUT_SECONDS": "0",
        "QUEUE_VISIBILITY": "5",
    }
    process = await start(**environ)
    await process.until(process.ready)
    messages_api.behaviours.append(messages_api.hang)
    status, got = await process.post("boots?")
    assert status == 202
    await process.until(lambda: messages_api.attempts == 1)
    assert await process.end(signal.SIGKILL) == -signal.SIGKILL
    second = await start(**environ)
    await second.until(second.ready)

    async def done() -> Any:
        async with second.session.get(f"{second.url}/v1/tasks/{got['task_id']}") as found:
            task = await found.json()
        return task if task["status"] == "done" else None

    task = await second.until(done)
    assert task["reply"] == "An answer from the model."


async def test_a_taken_port_is_told(start: Any) -> None:
    """Where the port is taken the process ends with 1 and names it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = await start(API_PORT=str(port))
        assert await process.end() == 1
    (told,) = [event for event in process.events if event["event"] == "not_listening"]
    assert told["port"] == port


async def test_migrate_prepares_the_database(start: Any, tmp_path: Path) -> None:
    """The command makes the schema and ends with 0; a database out of reach is 3, a wrong one 1."""
    assert await (await start("migrate")).end() == 0
    assert await (await start("migrate")).end() == 0
    (tmp_path / "wrong.db").write_bytes(b"no database" * 1000)
    assert await (await start("migrate", DATABASE_URL=f"sqlite:///{tmp_path}/wrong.db")).end() == 1
    assert await (await start("migrate", DATABASE_URL="postgresql://u:p@127.0.0.1:9/d")).end() == 3


async def test_only_what_runs_is_imported(tmp_path: Path) -> None:
    """Serving without a model and a key loads no SDK, no training library, no migration tool and no other database."""
    models = ("anthropic", "numpy", "obstore", "onnx", "onnxruntime", "sklearn")
    heavy = (*models, "aio_pika", "aiobotocore", "aiokafka", "alembic", "asyncpg", "cryptography", "jwt", "redis")
    code = (
        "import sys; from supportfleet_runtime import config, serve;"
        f"serve.build(config.load({{'DATABASE_URL': 'sqlite:///{tmp_path}/x.db'}}));"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert printed.decode().splitlines()[-1] == "[]"


def _refuses(url: str) -> bool:
    """Whether new connections are refused."""
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return True
    return False
