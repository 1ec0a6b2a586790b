from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import pkgutil
import runpy
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, Column, Connection, Float, Integer, Table, Text, insert, select

from supportfleet_runtime import erase_command, storage
from supportfleet_runtime.agent.turn import Answer, Source
from supportfleet_runtime.conversations.turns import Answered
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.erasure import Erased, Erasure
from supportfleet_runtime.storage.personal_data import HOLDINGS, Fate
from supportfleet_runtime.storage.schema import UtcDateTime, audit_log, erasures, metadata

for _module in pkgutil.walk_packages(storage.__path__, f"{storage.__name__}."):
    if "migrations" not in _module.name:
        importlib.import_module(_module.name)  # whatever defines tables

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCOPE = "shop/helper"
MARK = "Ada Lovelace, 12 St James's Square"
HELD = [holding for holding in HOLDINGS if holding.fate is not Fate.ERASURE]
Desk = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_conversations.py"))["Desk"]


def value(column: Column[Any], customer: str, parents: dict[str, Any]) -> Any:
    """Something for a column; what a person may have written wherever text has no limit."""
    if column.foreign_keys:
        parent = next(iter(column.foreign_keys)).column
        return parents[f"{parent.table.name}.{parent.name}"]
    if column.name in {"scope", "customer_id"}:
        return {"scope": SCOPE, "customer_id": customer}[column.name]
    kinds: tuple[tuple[Any, Any], ...] = (
        (UtcDateTime, NOON),
        (Boolean, False),
        (JSON, {}),
        (Float, 1.0),
        (Integer, None if column.primary_key and column.autoincrement is not False else 1),
        (Text, MARK),
    )
    known = next((given for kind, given in kinds if isinstance(column.type, kind)), ...)
    return f"{customer[0]}{column.name}"[: getattr(column.type, "length", 0)] if known is ... else known


def plant(connection: Connection, customer: str) -> None:
    """A row of the customer's in every table that can hold one."""
    parents: dict[str, Any] = {}
    held = {holding.table for holding in HELD}
    for table in metadata.sorted_tables:
        if table in held:
            row = {column.name: value(column, customer, parents) for column in table.columns}
            row = {name: given for name, given in row.items() if given is not None}
            connection.execute(insert(table).values(row))
            parents |= {f"{table.name}.{name}": given for name, given in row.items()}


async def everything(database: Database, tables: Iterable[Table] = ()) -> str:
    """All columns of all rows of all tables."""

    def read(connection: Connection) -> str:
        chosen = list(tables) or metadata.sorted_tables
        return "\n".join(f"{table.name}: {row}" for table in chosen for row in connection.execute(select(table)))

    return await database.read(read)


async def no_pause(_seconds: float) -> None:
    pass


@pytest.fixture
def erasure(database: Database, clock: Any) -> Erasure:
    return Erasure(database, SCOPE, now=clock, pause=no_pause)


@pytest.fixture
def desk(database: Database, clock: Any) -> Any:
    return Desk(database, clock, SCOPE)


class TestHoldings:
    def test_every_table_that_names_a_customer_is_listed(self) -> None:
        """A table with a column for a customer or a conversation, or with rows of a listed one, is in HOLDINGS."""
        listed = {holding.table.name for holding in HOLDINGS}
        names = {
            table.name
            for table in metadata.sorted_tables
            if any("customer" in column.name or "conversation" in column.name for column in table.columns)
            or {key.column.table.name for key in table.foreign_keys} & listed
        }
        assert names <= listed

    @pytest.mark.parametrize("holding", HELD, ids=lambda holding: holding.table.name)
    def test_what_stays_keeps_no_text(self, holding: Any) -> None:
        """A table whose rows stay blanks every column in which anything can stand; the others can be found."""
        free = {column.name for column in holding.table.columns if type(column.type) is Text}
        if holding.fate is Fate.PSEUDONYM:
            assert free <= holding.blanked.keys()
        if holding.fate in {Fate.PSEUDONYM, Fate.REMOVED}:
            assert {"scope", "customer_id"} <= set(holding.table.c.keys())


class TestErasing:
    async def test_nothing_is_left_in_any_column(self, database: Database, erasure: Erasure) -> None:
        """A customer planted in every table is in none of them afterwards; another customer's rows are as they were."""
        await database.write(lambda connection: plant(connection, "bob"))
        bobs = set((await everything(database)).splitlines())
        await database.write(lambda connection: plant(connection, "ada"))
        erased = await erasure.erase("ada")
        left = await everything(database)
        assert MARK not in "\n".join(set(left.splitlines()) - bobs)
        assert "'ada'" not in left
        assert bobs <= set(left.splitlines())
        touched = erased.removed.keys() | erased.pseudonymised.keys()
        assert touched == {holding.table.name for holding in HELD}

    async def test_what_happened_stays_on_record(self, database: Database, erasure: Erasure) -> None:
        """The audit log keeps its rows under one pseudonym, that of the erasure, which is on record itself."""
        await database.write(lambda connection: plant(connection, "ada"))
        erased = await erasure.erase("ada")
        rows = await database.read(lambda connection: connection.execute(select(audit_log)).all())
        assert {row.customer_id for row in rows} == {erased.pseudonym}
        assert rows[-1].event == audit.CUSTOMER_ERASED
        assert rows[-1].facts["removed_messages"] == 1
        (kept,) = await database.read(lambda connection: connection.execute(select(erasures)).all())
        assert (kept.id, kept.customer_id, kept.finished_at is not None) == (erased.pseudonym, None, True)

    async def test_a_second_run_removes_nothing(self, database: Database, erasure: Erasure) -> None:
        """Erasing again, or somebody unknown, finds nothing and changes nothing."""
        await database.write(lambda connection: plant(connection, "ada"))
        await erasure.erase("ada")
        before = await everything(database)
        for customer in ("ada", "nobody"):
            assert await erasure.erase(customer) == Erased({}, {}, finished=True, pseudonym=None)
        assert await everything(database) == before

    async def test_agents_are_apart(self, database: Database, clock: Any) -> None:
        """Another agent's customer of the same name is another customer."""
        await database.write(lambda connection: plant(connection, "ada"))
        before = await everything(database)
        other = Erasure(database, "shop/other", now=clock, pause=no_pause)
        assert not (await other.erase("ada")).removed
        assert await everything(database) == before

    async def test_many_conversations(self, desk: Any, database: Database, erasure: Erasure) -> None:
        """More conversations than go into one transaction are all removed, and told to the cache."""
        told: list[str] = []

        async def forget(ids: Any) -> None:
            told.extend(ids)

        said = await asyncio.gather(*(desk.say(f"hello {number}") for number in range(130)))
        erasure._forget = forget
        erased = await erasure.erase("ada")
        assert erased.removed == {"conversations": 130, "messages": 130, "tasks": 130}
        assert erased.pseudonymised == {"audit_log": 130}
        assert set(told) == {one.conversation_id for one in said}

    async def test_it_goes_on_after_any_interruption(self, desk: Any, database: Database, erasure: Erasure) -> None:
        """Killed before each of its transactions in turn, it ends with one pseudonym and nothing left."""
        await database.write(lambda connection: plant(connection, "ada"))
        for number in range(60):
            await desk.say(f"hello {number}")
        write = database.write
        left = 0

        async def breaking(work: Callable[[Connection], Any]) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return await write(work)

        erased, runs = None, 0
        erasure._database = type("Breaking", (), {"write": staticmethod(breaking), "read": database.read})()
        while erased is None:
            left = runs = runs + 1
            try:
                erased = await erasure.erase("ada")
            except KeyboardInterrupt:
                continue
        assert runs > 3
        rows = await everything(database)
        assert "'ada'" not in rows
        assert MARK not in rows
        kept = await database.read(lambda c: set(c.execute(select(audit_log.c.customer_id)).scalars()))
        assert kept == {erased.pseudonym}
        (ended,) = await database.read(lambda connection: connection.execute(select(erasures)).all())
        assert (ended.id, ended.finished_at is not None) == (erased.pseudonym, True)

    async def test_it_ends_what_was_all_but_done(self, desk: Any, database: Database, erasure: Erasure) -> None:
        """An erasure that was killed when all but its end was done is ended, and on record, with its pseudonym."""
        await desk.say("hello")

        def killed(*_: Any) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasure, "_end", killed)
            with pytest.raises(KeyboardInterrupt):
                await erasure.erase("ada")
        erased = await erasure.erase("ada")
        assert not erased.removed
        rows = await database.read(lambda connection: connection.execute(select(audit_log)).all())
        assert [row.event for row in rows] == [audit.MESSAGE_ACCEPTED, audit.CUSTOMER_ERASED]
        assert {row.customer_id for row in rows} == {erased.pseudonym}


class TestUnderWay:
    async def test_a_message_that_is_being_worked(self, desk: Any, database: Database, erasure: Erasure) -> None:
        """A worker that holds a message stores nothing of it, and what its tools write meanwhile goes as well."""
        await desk.say("hello")
        lease = await desk.take()
        turn = await desk.turns.load(lease.id)
        waited: list[float] = []

        async def meanwhile(seconds: float) -> None:
            waited.append(seconds)
            answer = Answer("too late", "refund", 0.9, Source.RULES, escalate=True)
            assert not await desk.turns.store(Answered(lease, turn, answer))
            event = audit.Event("tool_used", desk.clock(), SCOPE, "ada")
            await database.write(lambda connection: audit.record(connection, [event]))
            desk.clock.advance(seconds)

        erasure._pause = meanwhile
        erased = await erasure.erase("ada")
        assert erased.finished
        assert waited == [30]
        assert erased.pseudonymised == {"audit_log": 2}
        assert "'ada'" not in await everything(database)

    async def test_a_message_that_is_being_accepted(self, desk: Any, database: Database, erasure: Erasure) -> None:
        """Messages sent while the erasure runs are either refused, removed, or wholly there as new ones."""
        first = await desk.say("hello")

        async def write_on() -> list[Any]:
            known = [desk.say(f"more {number}", first.conversation_id) for number in range(5)]
            fresh = [desk.say(f"new {number}") for number in range(5)]
            return await asyncio.gather(*known, *fresh, return_exceptions=True)

        await asyncio.gather(erasure.erase("ada"), write_on())
        assert (await erasure.erase("ada")).finished
        assert "'ada'" not in await everything(database)

    async def test_one_who_never_stops_writing(self, desk: Any, erasure: Erasure) -> None:
        """Where each round finds something new the erasure ends and says that it has not finished."""

        async def write_again(_ids: Any) -> None:
            await desk.say("me again")

        await desk.say("hello")
        erasure._forget = write_again
        wanted = erasure._remove_some
        calls = 0

        def once_a_round(connection: Connection, customer_id: str) -> Any:
            nonlocal calls
            calls += 1
            return wanted(connection, customer_id) if calls % 2 else ((), {}, None)

        erasure._remove_some = once_a_round  # type: ignore[method-assign]
        assert not (await erasure.erase("ada")).finished


class TestCommand:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: Any, database_url: str, tmp_path: Any) -> None:
        given = {"DATABASE_URL": database_url, "CONFIG_DIR": str(tmp_path), "POD_NAMESPACE": "shop"}
        for name, known in {**given, "AGENT_NAME": "helper"}.items():
            monkeypatch.setenv(name, known)

    async def run(self, *arguments: str) -> int:
        return await asyncio.to_thread(erase_command.run, command(*arguments))

    async def test_it_says_what_it_removed(self, desk: Any, database: Database, capsys: Any) -> None:
        """The figures of each table are told, once, and the customer's name is in no output."""
        await desk.say("hello")
        capsys.readouterr()
        assert await self.run("--customer", "ada", "--yes", "-o", "json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["removed"] == {"conversations": 1, "messages": 1, "tasks": 1}
        assert told["pseudonymised"] == {"audit_log": 1}
        assert await self.run("--customer", "ada", "--yes") == 0
        both = capsys.readouterr()
        assert "nothing to erase" in both.out
        assert "ada" not in both.out + both.err
        assert "'ada'" not in await everything(database)

    async def test_it_is_confirmed_first(self, desk: Any, database: Database) -> None:
        """Without --yes, and nobody there to ask, nothing is erased."""
        await desk.say("hello")
        assert await self.run("--customer", "ada") == 1
        assert "'ada'" in await everything(database)


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    erase_command.add_arguments(parser)
    return parser.parse_args(arguments)
