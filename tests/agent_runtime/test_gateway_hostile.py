from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from supportfleet_runtime.storage.schema import messages

_hostile = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "hostile_requests.py"))
REQUESTS = 1_500
SEED = 7


async def test_no_server_error_and_nobody_gets_in(start_agent: Any, tmp_path: Path) -> None:
    """Of 1,500 hostile requests none is an error of the server's, none without a key or token is let in."""
    forger = _hostile["Forger"]()
    agent = await start_agent(**forger.environment(tmp_path / "jwks.json"), RATE_LIMIT="0")
    server = agent.client.server
    outcome = await _hostile["attack"](server.host, server.port, _hostile["requests"](REQUESTS, SEED, forger))
    assert not outcome.failures
    assert outcome.statuses.keys() == {"lengths", "heads", "bodies", "paths", "credentials"}
    for kind, statuses in outcome.statuses.items():
        assert statuses[0] < 0.6 * statuses.total(), f"{kind}: most are answered, so the test sees what becomes of them"
    assert {400, 401, 404, 405, 413, 422} <= {status for found in outcome.statuses.values() for status in found}
    async with agent.client.get("/metrics") as got:
        figures = await got.text()
    assert 'agent_request_total{intent="none",status="401"}' in figures
    assert not [line for line in figures.splitlines() if line.startswith("agent_request_total") and 'status="5' in line]
    query = select(func.count()).select_from(messages).where(messages.c.role == "customer")
    stored = await agent.parts.database.read(lambda connection: connection.execute(query).scalar_one())
    answered = sum(
        count for found in outcome.statuses.values() for status, count in found.items() if status in {200, 202}
    )
    assert stored >= answered
    good = {"customer_id": "cust-1001", "text": "hello"}
    async with agent.client.post("/v1/messages", json=good, headers={"X-API-Key": _hostile["KEY"]}) as got:
        assert got.status == 200, "and it goes on serving"


async def test_a_token_of_the_forgers_key_would_open(start_agent: Any, tmp_path: Path) -> None:
    """What the forger changes is what is wrong with its tokens: an unchanged one opens."""
    forger = _hostile["Forger"]()
    agent = await start_agent(**forger.environment(tmp_path / "jwks.json"))
    headers = {"Authorization": f"Bearer {forger._good()}"}
    async with agent.client.post("/v1/messages", json=_hostile["MESSAGE"], headers=headers) as got:
        assert got.status == 200
