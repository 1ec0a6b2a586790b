"""Rows by any number of keys, and that nothing a message needs reads a whole table."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update

from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import conversations

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ODD = ("", "a", "A", "b", "1", "null", "'", '"', "\\", "$[0]", "[", "ä", "🙂", "a,b", "%", "a\nb", "a' OR '1'='1")
SCAN = re.compile(r"SCAN (?!CONSTANT|json_each|due|left_behind|tasks USING INDEX tasks_in_order)")


class TestKeys:
    @pytest.fixture
    async def pairs(self, database: Database) -> list[tuple[str, int]]:
        """Conversations with odd names, each with a number of turns."""
        found = [(name, number % 3) for number, name in enumerate(ODD)]
        fixed = {"scope": "s", "customer_id": "c", "created_at": NOON, "updated_at": NOON}
        rows = [{"id": name, "turns": turns, **fixed} for name, turns in found]
        await database.write(lambda connection: connection.execute(insert(conversations), rows))
        return found

    async def test_one_column(self, database: Database, pairs: list[tuple[str, int]]) -> None:
        """Exactly the rows whose key is given, whatever stands in it."""
        statement = select(conversations.c.id).where(among("ids_", conversations.c.id))
        names, chance = [name for name, _ in pairs], random.Random(1)
        for number in range(len(names) + 1):
            asked = [*chance.sample(names, number), "unknown"]
            assert await self._found(database, statement, {"ids_": asked}) == set(asked) - {"unknown"}
        assert await self._found(database, statement, {"ids_": []}) == set()

    async def test_several_columns(self, database: Database, pairs: list[tuple[str, int]]) -> None:
        """A key is all its members together: none that is put together from two keys is found."""
        statement = select(conversations.c.id).where(among("keys_", conversations.c.id, conversations.c.turns))
        chance = random.Random(2)
        for number in range(len(pairs) + 1):
            chosen = chance.sample(pairs, number)
            wrong = [(name, (turns + 1) % 3) for name, turns in pairs if (name, turns) not in chosen]
            assert await self._found(database, statement, {"keys_": chosen + wrong}) == {name for name, _ in chosen}

    async def test_it_is_one_condition_among_others(self, database: Database, pairs: list[tuple[str, int]]) -> None:
        """It can be negated, joined with others, and choose what is updated."""
        names = [name for name, _ in pairs]
        is_given = among("ids_", conversations.c.id)
        others = select(conversations.c.id).where(~is_given, conversations.c.turns == 0)
        expected = {name for name, turns in pairs[2:] if turns == 0}
        assert await self._found(database, others, {"ids_": names[:2]}) == expected
        changed = update(conversations).where(is_given).values(turns=9).returning(conversations.c.id)
        assert await self._found(database, changed, {"ids_": names[:2]}) == set(names[:2])

    async def test_one_statement_whatever_the_number(self, database: Database) -> None:
        """A driver has one statement to prepare and keep."""
        said: set[str] = set()
        statement = select(conversations.c.id).where(among("keys_", conversations.c.id, conversations.c.turns))

        def work(connection: Connection) -> None:
            event.listen(connection, "before_cursor_execute", lambda _c, _cursor, text, *_more: said.add(text))
            for number in (0, 1, 2, 3, 50):
                connection.execute(statement, {"keys_": [(f"c{index}", 1) for index in range(number)]}).all()

        await database.read(work)
        assert len(said) == 1

    async def _found(self, database: Database, statement: Any, values: dict[str, Any]) -> set[str]:
        return await database.write(lambda connection: set(connection.execute(statement, values).scalars()))


class TestPlans:
    @pytest.fixture
    def said(self) -> Iterator[dict[str, Any]]:
        """What is said to databases, with the parameters of one time."""
        found: dict[str, Any] = {}

        def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *more: Any) -> None:
            found[text] = parameters[0] if more[-1] else parameters

        event.listen(Engine, "before_cursor_execute", note)
        yield found
        event.remove(Engine, "before_cursor_execute", note)

    async def test_a_message_reads_no_whole_table(
        self, start_agent: Any, said: dict[str, Any], database_url: str
    ) -> None:
        """However much is stored, a message and a look at the figures cost the same: they find rows by an index.

        What looks for tasks that others left goes through an index of the unfinished ones.
        """
        agent = await start_agent()
        keys = itertools.count()

        async def talk(customer: str) -> str:
            message = {"customer_id": customer, "text": "Where is my order A-1001?"}
            for _ in range(3):
                key = {"Idempotency-Key": f"key-{next(keys)}"}
                async with agent.client.post("/v1/messages", json=message, headers=key) as got:
                    assert got.status == 200
                    message["conversation_id"] = (await got.json())["conversation_id"]
            return message["conversation_id"]

        said.clear()
        conversations = await asyncio.gather(*(talk(f"cust-{number}") for number in range(8)))
        assert said
        stolen = {"customer_id": "eve", "text": "And mine?", "conversation_id": conversations[0]}
        async with agent.client.post("/v1/messages", json=stolen, headers={"Idempotency-Key": "eve"}) as refused:
            assert refused.status == 404
        for path in ("/metrics", "/v1/health"):
            async with agent.client.get(path) as got:
                assert got.status == 200
        scans = {}
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as file:
            for text, parameters in said.items():
                if re.match(r"\s*(INSERT|BEGIN|PRAGMA)", text):
                    continue
                steps = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {text}", parameters)]
                if found := [step for step in steps if SCAN.match(step)]:
                    scans[text] = found
        assert not scans, "\n".join(f"{found}: {text}" for text, found in scans.items())
