"""LiteLLM's proxy, which others put before the Messages API: installed apart from the checkout, run in pass-through.

Its versions are pinned in ``litellm.txt`` (made of ``litellm[proxy]==1.106.0`` by ``uv pip compile --universal``). They
go into a virtual environment of their own in the cache, keyed by those pins and Python's version, since nothing of them
belongs with the project's own dependencies.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import orjson

from loading.client import questions
from loading.servers import API_KEY, Server, free_port

PINS = Path(__file__).parent / "litellm.txt"
INSTALL = ("uv", "pip", "install", "--quiet", "--compile-bytecode")
"""Compiled, for it tries to import a module that isn't there with each request, and would compile it each time."""
INSTALL_SECONDS = 900
PATH = "/anthropic/v1/messages"
"""Where it passes requests through as they are."""


def cache() -> Path:
    """The project's cache, outside the checkout: $SUPPORTFLEET_CACHE, else in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("SUPPORTFLEET_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supportfleet"


def program() -> Path:
    """The ``litellm`` of the pins, installed where it is not in the cache."""
    key = hashlib.sha256(PINS.read_bytes() + repr((INSTALL, sys.version)).encode()).hexdigest()[:16]
    folder = cache() / "benchmarks" / f"litellm-{key}"
    installed = folder / ".installed"
    if not installed.is_file():
        print(f"installing LiteLLM into {folder} (once)", flush=True)
        venv.create(folder, clear=True)
        where = ("--python", str(folder / "bin" / "python"), "--requirement", str(PINS))
        subprocess.run([sys.executable, "-m", *INSTALL, *where], check=True, timeout=INSTALL_SECONDS)
        installed.touch()
    return folder / "bin" / "litellm"


def litellm(model: Server, folder: Path) -> Server:
    """The proxy before ``model``: one process, no database, no keys, no telemetry."""
    configuration = folder / "litellm.json"
    configuration.write_text(json.dumps({"model_list": [], "litellm_settings": {"telemetry": False}}))
    port = free_port()
    options = {"config": configuration, "host": "127.0.0.1", "port": port, "num_workers": 1, "keepalive_timeout": 75}
    command = [str(program()), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    environ = {
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_API_BASE": f"http://127.0.0.1:{model.port}",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched from outside
    }
    return Server("LiteLLM", port, command, environ, "/health/liveliness")


def calls() -> Callable[[], bytes]:
    """The runtime's messages, as requests of the Messages API."""
    question = questions()

    def call() -> bytes:
        text = orjson.loads(question())["text"]
        said = [{"role": "user", "content": text}]
        return orjson.dumps({"model": "claude-haiku-5-5", "max_tokens": 1024, "messages": said})

    return call
