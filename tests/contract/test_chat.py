"""``supportfleet chat`` talks with the runtime as it is, through a kubectl that leads to nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SERVICE = "/api/v1/namespaces/default/services/desk:http/proxy"
GREETING = "Hello! [bold]Offers[/nope] are in [our shop]."
SECONDS = 60
Chat = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A runtime with the sample orders, in a process of its own; its address."""
    folder = tmp_path_factory.mktemp("runtime")
    (folder / "agent_config.json").write_text(json.dumps({"greeting": GREETING}))
    settings = {"API_HOST": "127.0.0.1", "API_PORT": "0", "CONFIG_DIR": str(folder)}
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{folder}/x.db", **settings}
    command = [sys.executable, "-m", "supportfleet_runtime", "serve"]
    with subprocess.Popen(command, env=environ, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        events = (json.loads(line) for line in process.stderr)
        address = next(event["addresses"][0] for event in events if event["event"] == "listening")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        until_ready(f"http://{address}/readyz")
        yield f"http://{address}"
        process.kill()


def until_ready(url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=SECONDS).close()  # noqa: S310 - http, to loopback
        except urllib.error.HTTPError:
            assert time.monotonic() < deadline, "the runtime is not ready"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def api_server(runtime: str) -> Iterator[int]:
    """The API server's proxy to the Services of a cluster that has this one; its port."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            status, answer = 404, b'{"kind": "Status", "message": "services \\"door\\" not found"}'
            if self.path.startswith(SERVICE):
                url = runtime + self.path.removeprefix(SERVICE)
                request = urllib.request.Request(url, body, dict(self.headers), method=self.command)  # noqa: S310 - http
                try:
                    with urllib.request.urlopen(request, timeout=SECONDS) as got:  # noqa: S310 - the same
                        status, answer = got.status, got.read()
                except urllib.error.HTTPError as error:
                    status, answer = error.code, error.read()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def chat(api_server: int, tmp_path: Path) -> Chat:
    """The command, with a kubectl whose proxy is there already."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\necho Starting to serve on 127.0.0.1:{api_server}\nexec sleep 600\n")
    kubectl.chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COLUMNS": "200"}

    def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supportfleet", "chat", *arguments]
        return subprocess.run(
            command, input=typed, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    return run


def test_a_question_is_answered(chat: Chat) -> None:
    """The reply is shown with the intent, how sure that is, and who answered."""
    done = chat("desk", "Where is my order A-1001?")
    assert done.returncode == 0, done.stderr
    assert "Order A-1001" in done.stdout
    assert re.search(r"order_status \(100%\), rules, \d+ ms", done.stdout)


def test_what_takes_long_is_waited_for(chat: Chat) -> None:
    """An answer that is a task at first is asked for until it is there."""
    done = chat("desk", "show me all my orders")
    assert done.returncode == 0, done.stderr
    assert "A-1002" in done.stdout
    assert "detailed_history" in done.stdout


def test_replies_are_shown_as_they_are(chat: Chat) -> None:
    """What looks like markup in a reply is its text."""
    done = chat("desk", "hello")
    assert done.returncode == 0, done.stderr
    assert GREETING in done.stdout


def test_a_conversation_goes_on(chat: Chat) -> None:
    """Without a text it is a conversation, in which the agent's question can be answered; an empty line ends it."""
    done = chat("desk", typed="Where is my order?\nA-1001\n\n")
    assert done.returncode == 0, done.stderr
    assert "Which order" in done.stdout
    assert "Order A-1001" in done.stdout


def test_an_agent_that_is_not_there(chat: Chat) -> None:
    """The API server's words, and what to look at."""
    done = chat("door", "hello")
    assert done.returncode == 1
    assert 'services "door" not found' in done.stderr
    assert "kubectl -n default get supportagents" in done.stderr


def test_what_is_refused(chat: Chat) -> None:
    """The agent's own reason is told."""
    done = chat("desk", "x" * 9000)
    assert done.returncode == 1
    assert "desk answered 422" in done.stderr
    assert "Traceback" not in done.stderr
