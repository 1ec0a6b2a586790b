"""Real servers for the services tier: a PostgreSQL of its own, thrown away afterwards.

It needs Debian's package ``postgresql-15`` (any version under /usr/lib/postgresql will do, or one on PATH), and works
as root too: the server then runs as user ``postgres``, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import os
import pwd
import runpy
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_shared = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "conftest.py"))
clock = _shared["clock"]
database = _shared["database"]
messages_api = _shared["messages_api"]
start_agent = _shared["start_agent"]
free_port = runpy.run_path(str(Path(__file__).parents[1] / "ports.py"))["free_port"]

START_SECONDS = 60
USER = "postgres"


class PostgreSQL:
    """A server on a loopback port, with its data in a temporary folder."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="supportfleet-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(USER)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.port = free_port()
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._folder)}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port), *settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._as)
        deadline = time.monotonic() + START_SECONDS
        while self._run("pg_isready", *self._address, check=False):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as an outage does: connections break."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database; its URL."""
        name = f"t{uuid.uuid4().hex}"
        self._run("createdb", *self._address, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    @property
    def _address(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
            **self._as,
        )
        if check and done.returncode:
            raise AssertionError(f"{program}: {done.stderr.decode()}")
        return done.returncode


def _find_programs() -> Path | None:
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgresql(unavailable: Any) -> Iterator[PostgreSQL]:
    """A running server, for all tests."""
    programs = _find_programs()
    if programs is None:
        unavailable("PostgreSQL", "install Debian's package postgresql-15")
    server = PostgreSQL(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database_url(postgresql: PostgreSQL) -> str:
    """A database of the test's own."""
    return postgresql.new_database()
