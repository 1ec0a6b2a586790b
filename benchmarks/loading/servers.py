"""Servers as processes of their own: on which core they run, when they answer, what they use.

What is measured has one core for itself; what makes it work (the client, the fake Messages API, Redis) has another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from aiohttp import ClientError, ClientSession, ClientTimeout, web

START_SECONDS = 300
STOP_SECONDS = 30
HERE = Path(__file__).parent
API_KEY = "sk-ant-a-key-of-the-benchmark"


class StartError(Exception):
    """A server ended, or didn't answer in time; says its last words."""


@dataclass(frozen=True)
class Cores:
    """Where what is measured runs, and where the rest."""

    measured: int
    rest: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The last core, and another one where there is one."""
        free = sorted(os.sched_getaffinity(0))
        return cls(free[-1], free[0])


@dataclass(frozen=True)
class Server:
    """How a server is run. It is up once ``path`` answers, or, without one, once its port is open."""

    name: str
    port: int
    command: Sequence[str | Path]
    environ: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


class Running:
    """A server that runs, with the processes it may have started."""

    def __init__(self, server: Server, process: psutil.Process) -> None:
        self.server = server
        self._process = process

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    @property
    def cpu_seconds(self) -> float:
        """What it has used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._all())

    @property
    def rss_mb(self) -> float:
        """What it holds resident."""
        return sum(process.memory_info().rss for process in self._all()) / 2**20


@contextlib.asynccontextmanager
async def running(server: Server, core: int | None = None) -> AsyncIterator[Running]:
    """A server, from when it is up until it is told to stop; bound to a core, if one is given."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *server.command, env={**os.environ, **server.environ}, stdout=log, stderr=log
        )
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not await is_up(server):
                        if process.returncode is not None:
                            raise StartError(f"{server.name} ended: {_last_words(log.fileno())}")
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise StartError(f"{server.name} doesn't answer: {_last_words(log.fileno())}") from None
            yield Running(server, psutil.Process(process.pid))
        finally:
            await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    """Tell a process to stop, and end it where it doesn't."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def is_up(server: Server) -> bool:
    """Whether a server answers."""
    try:
        if not server.path:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.close()
            return True
        url = f"http://127.0.0.1:{server.port}{server.path}"
        async with ClientSession(timeout=ClientTimeout(total=5)) as session, session.get(url) as response:
            return response.status == web.HTTPOk.status_code
    except (OSError, ClientError, TimeoutError):
        return False


def _last_words(log: int) -> str:
    return os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as it is needed."""
    folder = Path(tempfile.mkdtemp(prefix="supportfleet-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def messages_api(milliseconds: float) -> Server:
    """The fake Messages API."""
    port = free_port()
    return Server("Messages API", port, (sys.executable, HERE / "messages_api.py", str(port), str(milliseconds)))


def runtime(role: str, model: Server, database: str, **environ: str) -> Server:
    """The runtime in a role, with Claude where ``model`` is and every customer's rate unlimited."""
    port = free_port()
    settings = {
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "DATABASE_URL": database,
        "LLM_PROVIDER": "anthropic",
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{model.port}",
        "RATE_LIMIT": "1000000",
        **environ,
    }
    command = (sys.executable, "-m", "supportfleet_runtime", role)
    return Server(f"runtime, {role}", port, command, settings, "/readyz")


def redis(folder: Path) -> Server | None:
    """A Redis that writes down what it is told, where the program is installed."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    port = free_port()
    options = {"bind": "127.0.0.1", "port": port, "dir": folder, "save": "", "appendonly": "yes"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return Server("Redis", port, (program, *arguments))
