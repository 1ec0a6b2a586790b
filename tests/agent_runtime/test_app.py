from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from supportfleet_runtime.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "data" / "support_intents.csv"
DIGEST = "sha256:" + "a" * 64


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for an asynchronous condition, and return what it came to."""
    async with asyncio.timeout(seconds):
        while not (value := await condition()):  # noqa: ASYNC110 - conditions of many kinds are awaited
            await asyncio.sleep(0.01)
        return value


async def readiness(agent: Any) -> tuple[int, dict[str, bool], str]:
    """What /readyz says: status, each check, and everything that is wrong."""
    async with agent.client.get("/readyz") as got:
        body = json.loads(await got.text())
    checks = {name: check["ok"] for name, check in body["checks"].items()}
    return got.status, checks, "; ".join(c["message"] for c in body["checks"].values() if not c["ok"])


def with_claude(api: Any, **more: str) -> dict[str, str]:
    return {"ANTHROPIC_API_KEY": api.key, "ANTHROPIC_BASE_URL": api.url, "CLAUDE_MODEL": "claude-test", **more}


class TestReadiness:
    async def test_everything_is_right(self, start_agent: Any) -> None:
        """A started agent is ready, and each of its checks says so."""
        status, checks, wrong = await readiness(await start_agent())
        assert status == 200
        assert checks == dict.fromkeys(("database", "schema", "model", "worker", "draining"), True)
        assert not wrong

    async def test_not_before_the_demanded_model(self, start_agent: Any) -> None:
        """With MODEL_DIGEST the pod is not ready until that model is loaded, and says what is missing."""
        agent = await start_agent(until_ready=False, MODEL_DIGEST=DIGEST)
        await until(lambda: _schema_is_there(agent))
        status, checks, wrong = await readiness(agent)
        assert status == 503
        assert not checks["model"]
        assert not checks["worker"]
        assert checks["database"]
        assert "sync-model" in wrong

    async def test_messages_wait_for_the_model(self, start_agent: Any) -> None:
        """Without its model an agent takes messages in and leaves them to the queue: no other model answers."""
        agent = await start_agent(until_ready=False, MODEL_DIGEST=DIGEST, API_TIMEOUT_SECONDS="0")
        await until(lambda: _schema_is_there(agent))
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "refund please"}) as got:
            assert got.status == 202
        assert await agent.metric("agent_queue_depth") == 1
        other = await start_agent()
        await until(lambda: _is(other.metric('agent_task_total{outcome="done"}'), 1))
        assert await agent.metric("agent_queue_depth") == 0

    async def test_a_database_out_of_reach(self, start_agent: Any) -> None:
        """The process lives, is not ready, refuses messages with 503, and shows an unknown depth as such."""
        agent = await start_agent(until_ready=False, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:9/d")
        assert (await agent.client.get("/healthz")).status == 200
        status, checks, wrong = await readiness(agent)
        assert status == 503
        assert not checks["database"]
        assert "hunter2" not in wrong
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "hi"}) as got:
            assert (got.status, got.content_type) == (503, "application/problem+json")
            assert got.headers["Retry-After"]
        depth = await agent.metric("agent_queue_depth")
        assert depth != depth, "NaN is equal to nothing"  # noqa: PLR0124

    async def test_a_database_that_goes_away(self, start_agent: Any, database_url: str) -> None:
        """A database that is lost later makes the pod unready and its messages 503, without a crash."""
        agent = await start_agent()
        if not database_url.startswith("sqlite"):
            pytest.skip("done with SQLite's file")
        await agent.say("hello")
        await agent.parts.database.write(lambda connection: connection.execute(text("DROP TABLE tasks")))
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "hi"}) as got:
            assert got.status == 503

    async def test_draining_is_not_ready(self, start_agent: Any) -> None:
        """A process that stops says so to whoever still asks."""
        agent = await start_agent()
        agent.parts.progress.draining = True
        status, checks, _ = await readiness(agent)
        assert (status, checks["draining"]) == (503, False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of models with one that was trained on the example data, and its digest."""
    artifact = tmp_path_factory.mktemp("trained") / "artifact"
    assert main(["train", "--data", str(EXAMPLES), "--output", str(artifact)]) == 0
    digest = hashlib.sha256((artifact / "manifest.json").read_bytes()).hexdigest()
    models = tmp_path_factory.mktemp("models")
    (models / "versions").mkdir()
    artifact.rename(models / "versions" / digest)
    return models, f"sha256:{digest}"


class TestTrainedModel:
    async def test_the_demanded_model_answers(self, start_agent: Any, trained: tuple[Path, str]) -> None:
        """A pod with its trained model is ready, names it, and understands what keywords don't."""
        models, digest = trained
        agent = await start_agent(MODEL_DIR=str(models), MODEL_DIGEST=digest)
        assert (await readiness(agent))[0] == 200
        assert await agent.metric(f'agent_model_info{{digest="{digest}",version="1"}}') == 1
        asked = await agent.say("hey guys my stuff still hasnt turned up, any idea when?")
        assert (asked["intent"], asked["source"]) == ("order_status", "rules")
        told = await agent.say("A-1001", conversation_id=asked["conversation_id"])
        assert "DHL" in told["reply"]
        assert await agent.metric("nlu_inference_time_seconds_count") == 2

    async def test_a_damaged_model_is_not_used(
        self, start_agent: Any, trained: tuple[Path, str], tmp_path: Path
    ) -> None:
        """A model whose files were changed leaves the pod unready, with the reason."""
        models, digest = trained
        shutil.copytree(models, tmp_path / "models")
        (graph,) = (tmp_path / "models").glob("versions/*/model.onnx")
        graph.write_bytes(graph.read_bytes()[:-1] + b"x")
        agent = await start_agent(until_ready=False, MODEL_DIR=str(tmp_path / "models"), MODEL_DIGEST=digest)
        await until(lambda: _mentions(agent, "model.onnx"))
        assert (await readiness(agent))[0] == 503


class TestAnswersOfClaude:
    async def test_claude_answers_with_the_conversation(self, start_agent: Any, messages_api: Any) -> None:
        """What rules don't know Claude answers, shown the configured prompt and what was said before."""
        agent = await start_agent(**with_claude(messages_api))
        first = await agent.say("Do your boots run small?")
        assert (first["source"], first["model"]) == ("model", "claude-test")
        await agent.say("And your socks?", conversation_id=first["conversation_id"])
        said = [(one["role"], one["content"]) for one in messages_api.requests[-1]["messages"]]
        assert said == [
            ("user", "Do your boots run small?"),
            ("assistant", "An answer from the model."),
            ("user", "And your socks?"),
        ]
        assert await agent.metric('agent_tokens_total{kind="input",model="claude-test"}') == 42

    async def test_a_failing_service_is_a_fallback(self, start_agent: Any, messages_api: Any) -> None:
        """Errors and silence of the service become the generic reply, with status 200 and level 4."""
        agent = await start_agent(**with_claude(messages_api, CLAUDE_TIMEOUT="0.5", CLAUDE_RETRIES="0"))
        messages_api.then(lambda: messages_api.error(529))
        overloaded = await agent.say("Do your boots run small?")
        messages_api.behaviours.append(messages_api.hang)
        silent = await agent.say("Do your boots run small?")
        for got in (overloaded, silent):
            assert (got["source"], got["fallback_level"], got["model"]) == ("fallback", 4, None)
        assert await agent.metric('agent_fallback_total{level="4"}') == 2

    async def test_a_slow_answer_becomes_a_task(self, start_agent: Any, messages_api: Any) -> None:
        """An answer that takes longer than the limit is not lost: 202, then the task has it."""
        release = asyncio.Event()

        async def slow(_request: Any) -> Any:
            await release.wait()
            from aiohttp import web  # noqa: PLC0415 - only here

            return web.json_response(messages_api.message("At last."))

        agent = await start_agent(**with_claude(messages_api, API_TIMEOUT_SECONDS="0.2"))
        messages_api.behaviours.append(slow)
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "boots?"}) as got:
            assert got.status == 202
            location = got.headers["Location"]
        assert await until(lambda: _task(agent, location, "running"))
        release.set()
        done = await until(lambda: _task(agent, location, "done"))
        assert done["reply"] == "At last."


class TestSharing:
    async def test_any_agent_continues_a_conversation(self, start_agent: Any) -> None:
        """Of two agents on one database each knows what was said to the other."""
        one, two = await start_agent(), await start_agent()
        asked = await one.say("where is my order?")
        told = await two.say("A-1001", conversation_id=asked["conversation_id"])
        assert "DHL" in told["reply"]
        for agent in (one, two):
            async with agent.client.get(f"/v1/conversations/{asked['conversation_id']}") as got:
                assert len((await got.json())["messages"]) == 4

    async def test_a_reply_from_elsewhere_reaches_who_waits(self, start_agent: Any) -> None:
        """An agent that can't work answers its customers with what the other one worked."""
        waiting = await start_agent(until_ready=False, MODEL_DIGEST=DIGEST)
        await start_agent()
        await until(lambda: _schema_is_there(waiting))
        got = await waiting.say("Where is my order A-1001?")
        assert "DHL" in got["reply"]

    async def test_each_message_is_answered_once(self, start_agent: Any) -> None:
        """With several agents at work each message has one reply, and each conversation stays in order."""
        agents = [await start_agent() for _ in range(3)]

        async def talk(number: int) -> str:
            first = await agents[number % 3].say("where is my order?")
            conversation = first["conversation_id"]
            said = (agents[(number + step) % 3].say("A-1001", conversation_id=conversation) for step in range(1, 4))
            await asyncio.gather(*said)
            return str(conversation)

        for conversation in await asyncio.gather(*(talk(number) for number in range(8))):
            async with agents[0].client.get(f"/v1/conversations/{conversation}") as got:
                messages = (await got.json())["messages"]
            assert [(one["turn"], one["role"]) for one in messages] == [
                (turn, role) for turn in range(1, 5) for role in ("customer", "agent")
            ]
        done = [await agent.metric('agent_task_total{outcome="done"}') for agent in agents]
        assert sum(done) == 32


class TestCrashes:
    async def test_an_accepted_message_outlives_its_process(
        self, start_agent: Any, clock: Any, messages_api: Any
    ) -> None:
        """A message in work when its process vanishes is answered by another one, once the lease has run out."""
        agent = await start_agent(now=clock, **with_claude(messages_api, API_TIMEOUT_SECONDS="0"))
        messages_api.behaviours.append(messages_api.hang)
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "boots?"}) as got:
            location = got.headers["Location"]
        await until(lambda: _is(_value(messages_api.attempts), 1))
        for _, task in list(agent.parts.worker._running.values()):
            task.cancel()  # as dead as a process can be and still be asked: nothing is released
        clock.advance(31)
        other = await start_agent(now=clock)
        done = await until(lambda: _task(other, location, "done"))
        assert done["model"] == "scripted"

    async def test_a_message_that_cannot_be_answered_gets_the_generic_reply(
        self, start_agent: Any, clock: Any, messages_api: Any
    ) -> None:
        """A message whose every attempt failed is dead-lettered, and its customer is answered all the same."""
        agent = await start_agent(now=clock, QUEUE_MAX_TRIES="1", **with_claude(messages_api))
        agent.parts.ladder.ask = None  # a bug: whatever calls it fails with TypeError
        got = await agent.say("boots?")
        assert (got["source"], got["fallback_level"]) == ("fallback", 4)
        async with agent.client.get(f"/v1/tasks/{got['task_id']}") as task:
            assert (await task.json())["status"] == "failed"
        assert await agent.metric('agent_task_total{outcome="dead"}') == 1
        assert (await agent.say("Where is my order A-1001?"))["source"] == "rules", "the worker goes on"

    async def test_requests_under_way_are_answered_when_it_stops(self, start_agent: Any, messages_api: Any) -> None:
        """A server that is closed answers those who wait before it ends."""
        agent = await start_agent(**with_claude(messages_api))
        reached, release = asyncio.Event(), asyncio.Event()

        async def slow(request: Any) -> Any:
            reached.set()
            await release.wait()
            return await messages_api.drop(request)

        messages_api.behaviours += [slow]
        asking = asyncio.create_task(agent.say("boots?"))
        await reached.wait()
        closing = asyncio.create_task(agent.client.server.close())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(closing), 0.05)
        assert not closing.done()
        release.set()
        assert (await asking)["reply"]
        await closing


async def test_a_file_that_nobody_configured(start_agent: Any, tmp_path: Path) -> None:
    """The agent's own configuration decides what it says."""
    (tmp_path / "agent_config.json").write_text('{"greeting": "Moin!", "company": "Acme"}')
    agent = await start_agent()
    assert (await agent.say("hello"))["reply"] == "Moin!"


async def _schema_is_there(agent: Any) -> bool:
    return agent.parts.progress.schema is None and "sync-model" in (agent.parts.model.problem or "sync-model")


async def _mentions(agent: Any, words: str) -> bool:
    return words in (agent.parts.model.problem or "")


async def _is(value: Any, expected: float) -> bool:
    return bool(await value == expected)


async def _value(value: float) -> float:
    return value


async def _task(agent: Any, location: str, status: str) -> Any:
    async with agent.client.get(location) as got:
        task = await got.json()
    return task if task["status"] == status else None
