"""Gateway and worker as processes of their own: what each serves, and that messages get from one to the other."""

from __future__ import annotations

import asyncio
from typing import Any

from supportfleet_runtime.roles import Role

PATIENCE = 30


async def test_a_gateways_message_is_answered_by_a_worker(start_agent: Any) -> None:
    """The customer who asks the gateway gets the worker's answer, and the gateway loads no model for it."""
    gateway = await start_agent(Role.GATEWAY)
    worker = await start_agent(Role.WORKER)
    said = await asyncio.wait_for(gateway.say("Where is my order A-1001?"), PATIENCE)
    assert said["intent"] == "order_status"
    assert not gateway.parts.model.loaded.is_set()
    assert await worker.metric('agent_request_total{intent="order_status",status="200"}') == 0


async def test_without_a_worker_nothing_is_lost(start_agent: Any) -> None:
    """A message that no worker takes in time is a task, which the next worker does."""
    gateway = await start_agent(Role.GATEWAY, API_TIMEOUT_SECONDS="0")
    body = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}
    async with gateway.client.post("/v1/messages", json=body) as got:
        assert got.status == 202
        task = (await got.json())["task_id"]
    await start_agent(Role.WORKER)
    async with asyncio.timeout(PATIENCE):
        while True:
            async with gateway.client.get(f"/v1/tasks/{task}") as got:
                if (await got.json())["status"] == "done":
                    break
            await asyncio.sleep(0.05)


async def test_a_worker_serves_no_customers(start_agent: Any) -> None:
    """It answers Kubernetes and Prometheus only."""
    worker = await start_agent(Role.WORKER)
    for path, status in {"/v1/messages": 404, "/readyz": 200, "/healthz": 200, "/metrics": 200}.items():
        async with worker.client.get(path) as got:
            assert got.status == status, path


async def test_a_gateway_says_nothing_of_the_language_model(start_agent: Any) -> None:
    """It has no key and asks none, so its health sends people to the workers; theirs tells who answers."""
    for role, said in ((Role.GATEWAY, "workers ask the language model"), (Role.WORKER, "the scripted provider")):
        process = await start_agent(role)
        async with process.client.get("/v1/health") as got:
            claude = (await got.json())["components"]["claude"]
        assert claude["status"] == "not configured"
        assert said in claude["message"]


async def test_a_gateway_answers_no_copies(start_agent: Any) -> None:
    """A copy of a message must not be stored, so where nothing is worked it is refused."""
    gateway = await start_agent(Role.GATEWAY)
    headers = {"Host": "desk.example.com-shadow"}
    async with gateway.client.post("/v1/messages", json={"customer_id": "c", "text": "Hello"}, headers=headers) as got:
        assert got.status == 503
        assert "gateway alone" in (await got.json())["detail"]
