from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import event, func, select, text

from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.records import Incoming, Once
from supportfleet_runtime.errors import KeyReusedError, NotFoundError
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.queue.wakeup import Wakeup
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.schema import idempotency_keys, messages, tasks
from supportfleet_runtime.storage.url import parse_database_url

MESSAGE = {"customer_id": "cust-1001", "text": "Where is my order A-1001?"}


async def post(agent: Any, key: str | None, **members: Any) -> tuple[int, dict[str, Any], bool]:
    """Send a message; the status, the body, and whether it is a repeated one's."""
    headers = {} if key is None else {"Idempotency-Key": key}
    async with agent.client.post("/v1/messages", json={**MESSAGE, **members}, headers=headers) as got:
        return got.status, json.loads(await got.text()), "Idempotency-Replayed" in got.headers


class TestGateway:
    async def test_sent_twice_is_taken_once(self, start_agent: Any) -> None:
        """The same key and body are the same task and answer; another customer's key is another key."""
        agent = await start_agent()
        status, first, replayed = await post(agent, "key-1")
        assert (status, replayed) == (200, False)
        status, second, replayed = await post(agent, "key-1")
        assert (status, replayed) == (200, True)
        assert first.pop("latency_ms") != second.pop("latency_ms")
        assert second == first
        others = await post(agent, "key-1", customer_id="cust-1002")
        assert (others[0], others[2]) == (200, False)

    async def test_another_message_is_refused(self, start_agent: Any) -> None:
        """The same key with another body is 422, whichever member differs."""
        agent = await start_agent()
        _, first, _ = await post(agent, "key-1")
        for members in ({"text": "hello"}, {"conversation_id": first["conversation_id"]}):
            status, body, _ = await post(agent, "key-1", **members)
            assert (status, body["type"]) == (422, "urn:supportfleet:problem:key-reused")

    async def test_while_the_first_is_under_way(self, start_agent: Any, messages_api: Any) -> None:
        """Copies that come while the first is worked wait for it: one task, one call of the model, one answer."""
        released = asyncio.Event()

        async def slowly(_request: web.Request) -> web.Response:
            await released.wait()
            return web.json_response(messages_api.message("42"))

        messages_api.behaviours.append(slowly)
        agent = await start_agent(ANTHROPIC_API_KEY=messages_api.key, ANTHROPIC_BASE_URL=messages_api.url)
        sent = [asyncio.create_task(post(agent, "key-1", text="What is love?")) for _ in range(8)]
        async with asyncio.timeout(10):
            while max(map(len, agent.parts.waiters._futures.values()), default=0) < 8:  # noqa: ASYNC110 - until all wait
                await asyncio.sleep(0.01)
        released.set()
        got = await asyncio.gather(*sent)
        assert [status for status, _, _ in got] == [200] * 8
        assert len({body["task_id"] for _, body, _ in got}) == len({body["reply"] for _, body, _ in got}) == 1
        assert sorted(replayed for _, _, replayed in got) == [False] + [True] * 7
        assert len(messages_api.requests) == 1

    async def test_when_nobody_waits(self, start_agent: Any) -> None:
        """Without patience the repeated message is told of the same task."""
        agent = await start_agent(API_TIMEOUT_SECONDS="0")
        first, second = await post(agent, "key-1"), await post(agent, "key-1")
        assert (first[0], second[0], second[1]) == (202, 202, first[1])

    async def test_it_survives_a_restart(self, start_agent: Any) -> None:
        """Another process with the same database knows the key."""
        _, first, _ = await post(await start_agent(), "key-1")
        status, second, replayed = await post(await start_agent(), "key-1")
        assert (status, replayed, second["task_id"]) == (200, True, first["task_id"])

    async def test_a_refused_message_keeps_no_key(self, start_agent: Any) -> None:
        """After a 404 the key is free: nothing was taken in."""
        agent = await start_agent()
        missing = "conv_" + "0" * 26
        assert (await post(agent, "key-1", conversation_id=missing))[0] == 404
        assert (await post(agent, "key-1"))[0] == 200

    @pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256])
    async def test_impossible_keys(self, start_agent: Any, key: str) -> None:
        """What is no key is 422 and names the header."""
        status, body, _ = await post(await start_agent(), key)
        assert (status, body["errors"][0]["pointer"]) == (422, "Idempotency-Key")


class Desk:
    """An intake of its own over the test's database."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database = database
        self.clock = clock
        self.intake = Intake(database, SqlQueue(database, "shop", lease=30, now=clock), "shop/helper", Wakeup())

    def message(self, key: str | None, said: str = "hello", conversation: str | None = None) -> Incoming:
        now = self.clock()
        ids = new_id("task", now), new_id("msg", now), "ada", conversation or new_id("conv", now)
        return Incoming(*ids, conversation is None, said, now, once=Once(key, said) if key else None)

    async def count(self, table: Any) -> int:
        query = select(func.count()).select_from(table)
        return int(await self.database.read(lambda connection: connection.execute(query).scalar_one()))


@pytest.fixture
async def desk(database: Database, clock: Any) -> Desk:
    return Desk(database, clock)


@pytest.fixture
async def another(desk: Desk, database_url: str, clock: Any) -> AsyncIterator[Desk]:
    """Another process, as far as the database can tell."""
    opened = Database(parse_database_url(database_url))
    yield Desk(opened, clock)
    await opened.close()


class TestIntake:
    async def test_many_at_once(self, desk: Desk, another: Desk) -> None:
        """Of many messages with few keys, sent through two processes together, each key's is stored once."""
        sent = [(number % 7, (desk, another)[number % 2]) for number in range(140)]
        got = await asyncio.gather(*(to.intake.accept(to.message(f"key-{key}", f"said {key}")) for key, to in sent))
        assert len({incoming.task_id for incoming in got}) == 7
        for table in (messages, tasks, idempotency_keys):
            assert await desk.count(table) == 7

    async def test_different_messages_at_once(self, desk: Desk, another: Desk) -> None:
        """Of different messages with one key one is taken in, the others are refused."""
        results = await asyncio.gather(
            *((desk, another)[n % 2].intake.accept(desk.message("key", f"said {n}")) for n in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Incoming) for result in results) == 1
        assert sum(isinstance(result, KeyReusedError) for result in results) == 19
        assert await desk.count(messages) == 1

    async def test_in_one_transaction(self, desk: Desk) -> None:
        """A message that can't be stored leaves no key, not even beside others that can; nor do its repetitions."""
        missing = new_id("conv", desk.clock())
        wanted = [
            desk.message("lost", "x", missing),
            desk.message("kept"),
            desk.message("lost", "x", missing),
            desk.message(None),
        ]
        results = await asyncio.gather(*(desk.intake.accept(it) for it in wanted), return_exceptions=True)
        assert [isinstance(result, NotFoundError) for result in results] == [True, False, True, False]
        assert await desk.count(idempotency_keys) == 1

    async def test_after_a_day(self, desk: Desk, clock: Any) -> None:
        """A key is free again after a day, and what is older is deleted."""
        first = await desk.intake.accept(desk.message("key-1"))
        await desk.intake.accept(desk.message("key-2"))
        clock.advance(timedelta(hours=23, minutes=59).total_seconds())
        assert (await desk.intake.accept(desk.message("key-1"))).task_id == first.task_id
        clock.advance(120)
        assert (await desk.intake.accept(desk.message("key-1", "something else"))).task_id != first.task_id
        clock.advance(700)
        await desk.intake.accept(desk.message("key-3"))
        assert await desk.count(idempotency_keys) == 2

    async def test_it_goes_with_its_conversation(self, desk: Desk) -> None:
        """Erasing a conversation erases its keys."""
        incoming = await desk.intake.accept(desk.message("key-1"))
        erase = text("DELETE FROM conversations WHERE id = :id")
        await desk.database.write(lambda connection: connection.execute(erase, {"id": incoming.conversation_id}))
        assert await desk.count(idempotency_keys) == 0

    async def test_without_a_key_it_costs_nothing(self, desk: Desk) -> None:
        """Messages without a key run no statement about keys."""
        said: list[str] = []

        def listen(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            said.append(statement)

        engine = desk.database._backend._engine  # type: ignore[attr-defined]
        event.listen(engine, "before_cursor_execute", listen)
        await desk.intake.accept(desk.message(None))
        without = len(said)
        assert not [statement for statement in said if "idempotency" in statement]
        await desk.intake.accept(desk.message("key-1"))
        assert len([statement for statement in said[without:] if "idempotency" in statement]) <= 3
