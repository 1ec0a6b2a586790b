"""The API's description is true: a generator of requests, Schemathesis, finds nothing that differs from it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key-of-the-shop-backend"
EXAMPLES = 20
# That a key may not come again with another message is no matter of its form: each good key comes once.
HOOKS = """
import itertools, re, schemathesis

numbers = itertools.count()

@schemathesis.hook
def before_call(context, case, kwargs):
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = f"key-{next(numbers)}"
"""


@pytest.fixture
async def agent(start_agent: Any) -> Any:
    return await start_agent(API_KEYS=KEY)


async def described(agent: Any) -> dict[str, Any]:
    async with agent.client.get("/openapi.json") as got:
        assert got.status == 200
        document: dict[str, Any] = json.loads(await got.text())
        return document


async def test_it_is_open_and_complete(agent: Any) -> None:
    """Anyone may read it, and every path that is served is in it, each method with a name of its own."""
    document = await described(agent)
    assert document["openapi"] == "3.1.0"
    served = {resource.canonical for resource in agent.client.app.router.resources()}
    assert document["paths"].keys() == served
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


async def test_it_says_how_to_authenticate(agent: Any, start_agent: Any) -> None:
    """Where keys are configured the description asks for one, and else it doesn't."""
    document = await described(agent)
    assert {"bearer": []} in document["paths"]["/v1/messages"]["post"]["security"]
    assert document["paths"]["/readyz"]["get"]["security"] == []
    opened = await described(await start_agent())
    assert opened["paths"]["/v1/messages"]["post"]["security"] == []
    assert "401" not in opened["paths"]["/v1/messages"]["post"]["responses"]


@pytest.mark.timeout(300)
async def test_schemathesis_finds_nothing(agent: Any, tmp_path: Path) -> None:
    """Every status, header, media type and body is as described, wrong data and methods are refused, right is taken."""
    (tmp_path / "hooks_of_gateway.py").write_text(HOOKS)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(agent.client.make_url("/openapi.json"))),
        *("--header", f"Authorization: Bearer {KEY}", "--checks", "all", "--workers", "1"),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic", "--no-color"),
        *("--suppress-health-check", "all"),  # a busy machine is no wrong schema
        *("--exclude-path-regex", "/events$"),  # a stream has no end that it could wait for
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks_of_gateway", "PYTHONPATH": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed.decode()
