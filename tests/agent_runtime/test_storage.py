from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text

from supportfleet_runtime.errors import StorageError, StorageUnavailableError
from supportfleet_runtime.storage.batcher import Batcher
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import new_id
from supportfleet_runtime.storage.migrate import FOLDER, migrate, schema_version
from supportfleet_runtime.storage.migrations import HEAD, VERSION_TABLE
from supportfleet_runtime.storage.schema import conversations, metadata
from supportfleet_runtime.storage.url import DatabaseKind, parse_database_url

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def conversation(id_: str, **facts: Any) -> dict[str, Any]:
    return {"id": id_, "scope": "s", "customer_id": "c", "turns": 1, "created_at": NOON, "updated_at": NOON, **facts}


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "kind", "target"),
        [
            ("sqlite:///data/x.db", DatabaseKind.SQLITE, "data/x.db"),
            ("sqlite:////var/x.db", DatabaseKind.SQLITE, "/var/x.db"),
            ("sqlite+aiosqlite:///x%20y.db", DatabaseKind.SQLITE, "x y.db"),
            ("postgres://u:p@h:5/d", DatabaseKind.POSTGRESQL, "postgresql://u:p@h:5/d"),
            ("postgresql+asyncpg://u:p%40@h/d", DatabaseKind.POSTGRESQL, "postgresql://u:p%40@h/d"),
            ("postgresql://h/d?sslmode=require", DatabaseKind.POSTGRESQL, "postgresql://h/d?sslmode=require"),
            (
                "postgresql://h/d?connect_timeout=5&sslmode=require",
                DatabaseKind.POSTGRESQL,
                "postgresql://h/d?sslmode=require",
            ),
            ("postgresql:///d?host=/run/pg", DatabaseKind.POSTGRESQL, "postgresql:///d?host=%2Frun%2Fpg"),
        ],
    )
    def test_customary_spellings(self, url: str, kind: DatabaseKind, target: str) -> None:
        """The ways in which people and providers write addresses mean what they always mean."""
        parsed = parse_database_url(url)
        assert (parsed.kind, parsed.target) == (kind, target)

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://u:secret@h/d",
            "sqlite://",
            "sqlite:///",
            "sqlite:///:memory:",
            "x",
            "sqlite://h/x.db",
            "sqlite:///x?mode=ro",
        ],
    )
    def test_others_are_refused(self, url: str) -> None:
        """What is not supported is refused without repeating what may be a password."""
        with pytest.raises(ValueError, match=r".") as raised:
            parse_database_url(url)
        assert "secret" not in str(raised.value)

    def test_it_does_not_show_its_password(self) -> None:
        """An address that is printed, as in a traceback, hides its target."""
        assert "secret" not in repr(parse_database_url("postgres://u:secret@h/d"))


class TestIds:
    def test_they_sort_by_age(self) -> None:
        """A later id is greater, whatever its random part."""
        ids = [new_id("task", NOON + timedelta(milliseconds=step)) for step in range(50)]
        assert ids == sorted(ids)
        assert all(re.fullmatch(r"task_[0-9A-Z]{26}", one) for one in ids)

    def test_they_are_unique(self) -> None:
        """Ids of the same moment differ."""
        assert len({new_id("x", NOON) for _ in range(1000)}) == 1000


class TestDatabase:
    async def test_a_failed_transaction_leaves_nothing(self, database: Database) -> None:
        """What was done before an exception is undone, and the exception is the caller's own."""

        def work(connection: Connection) -> None:
            connection.execute(insert(conversations), conversation("a"))
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await database.write(work)
        assert not await database.read(lambda connection: connection.execute(select(conversations)).all())

    async def test_moments_come_back_as_they_went(self, database: Database) -> None:
        """A moment of any zone is stored exactly, and read as UTC or its equal."""
        moment = datetime(2026, 3, 1, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        row = conversation("a", created_at=moment)
        await database.write(lambda connection: connection.execute(insert(conversations), row))
        found = await database.read(
            lambda connection: connection.execute(select(conversations.c.created_at)).scalar_one()
        )
        assert found == moment
        assert found.utcoffset() is not None

    async def test_refusals_do_not_quote_data(self, database: Database) -> None:
        """A constraint that fails is a StorageError whose text holds no value of the row."""
        row = conversation("a", customer_id="ada@example.com")
        await database.write(lambda connection: connection.execute(insert(conversations), row))
        with pytest.raises(StorageError) as raised:
            await database.write(lambda connection: connection.execute(insert(conversations), row))
        assert not isinstance(raised.value, StorageUnavailableError)
        assert "ada@example.com" not in f"{raised.value}"

    async def test_writers_do_not_disturb_each_other(self, database: Database) -> None:
        """Many transactions that read and then write lose no update and never fail on a lock."""
        await database.write(lambda connection: connection.execute(insert(conversations), conversation("a", turns=0)))

        def increment(connection: Connection) -> None:
            query = select(conversations.c.turns).with_for_update()
            turns = connection.execute(query).scalar_one()
            connection.execute(text("UPDATE conversations SET turns = :turns"), {"turns": turns + 1})

        await asyncio.gather(*(database.write(increment) for _ in range(50)))
        assert (
            await database.read(lambda connection: connection.execute(select(conversations.c.turns)).scalar_one()) == 50
        )


class TestSqlite:
    async def test_what_is_committed_is_on_the_disk(self, tmp_path: Path) -> None:
        """WAL with full synchronisation: a commit survives a power cut."""
        database = Database(parse_database_url(f"sqlite:///{tmp_path}/new/folder/x.db"))
        read = await database.write(
            lambda c: (
                c.exec_driver_sql("PRAGMA journal_mode").scalar(),
                c.exec_driver_sql("PRAGMA synchronous").scalar(),
            )
        )
        assert read == ("wal", 2)
        await database.close()

    async def test_a_lock_held_elsewhere_is_unavailable_not_for_ever(self, tmp_path: Path) -> None:
        """Another process that holds the file costs the time limit, and can be tried again."""
        path = tmp_path / "x.db"
        database = Database(parse_database_url(f"sqlite:///{path}"), timeout=0.2)
        await migrate(database)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError):
            await database.write(lambda connection: connection.execute(insert(conversations), conversation("a")))
        assert await database.read(lambda connection: connection.execute(select(conversations)).all()) == []
        other.execute("ROLLBACK")
        await database.write(lambda connection: connection.execute(insert(conversations), conversation("a")))
        other.close()
        await database.close()

    async def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """A wrong file is a storage error that names no content."""
        (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
        database = Database(parse_database_url(f"sqlite:///{tmp_path}/x.db"))
        with pytest.raises(StorageError):
            await migrate(database)
        await database.close()

    async def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A folder that is a file: the database is unavailable, and says so without a traceback's help."""
        (tmp_path / "file").touch()
        database = Database(parse_database_url(f"sqlite:///{tmp_path}/file/x.db"))
        with pytest.raises(StorageUnavailableError):
            await migrate(database)
        await database.close()


class TestMigration:
    async def test_the_migrations_make_the_schema(self, database: Database) -> None:
        """What the migrations build is exactly what the code expects."""

        def differences(connection: Connection) -> Any:
            context = MigrationContext.configure(
                connection, opts={"include_name": lambda name, *_: name != VERSION_TABLE}
            )
            return compare_metadata(context, metadata)

        assert await database.read(differences) == []

    def test_the_head_is_the_latest(self) -> None:
        """HEAD, which spares most starts loading Alembic, names the last migration; there is one line of them."""
        assert ScriptDirectory(str(FOLDER)).get_heads() == [HEAD]

    async def test_many_start_at_once(self, database_url: str) -> None:
        """Pods that start together all find the schema there, and none fails."""
        databases = [Database(parse_database_url(database_url), timeout=30) for _ in range(5)]
        assert await asyncio.gather(*(migrate(one) for one in databases)) == [HEAD] * 5
        for one in databases:
            await one.close()

    async def test_it_is_done_once(self, database: Database) -> None:
        """Migrating again changes nothing."""
        await database.write(lambda connection: connection.execute(insert(conversations), conversation("a")))
        assert await migrate(database) == HEAD
        assert len(await database.read(lambda connection: connection.execute(select(conversations)).all())) == 1

    async def test_a_newer_schema_is_left_alone(self, database: Database) -> None:
        """An old pod works on with a schema that a newer one has migrated."""
        await database.write(lambda c: c.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")))  # noqa: S608
        assert await migrate(database) == "9999"
        assert await database.read(schema_version) == "9999"


class TestBatcher:
    async def test_a_crowd_shares_a_flush(self) -> None:
        """What arrives while one flush runs is done in the next, together."""
        sizes: list[int] = []
        gate = asyncio.Event()

        async def flush(items: Sequence[int]) -> list[int | Exception]:
            sizes.append(len(items))
            await gate.wait()
            return [item * 2 for item in items]

        batcher: Batcher[int, int] = Batcher(flush, largest=4)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.submit(number)) for number in range(1, 8)]
        await asyncio.sleep(0)
        gate.set()
        assert await first == 0
        assert await asyncio.gather(*rest) == [2, 4, 6, 8, 10, 12, 14]
        assert sizes == [1, 4, 3]

    async def test_a_bad_item_fails_alone(self) -> None:
        """One item that can't be stored does not take the others with it."""

        async def flush(items: Sequence[int]) -> list[int | Exception]:
            if 3 in items:
                raise StorageError("three is refused")
            return list(items)

        batcher: Batcher[int, int] = Batcher(flush)
        got = await asyncio.gather(*(batcher.submit(number) for number in range(6)), return_exceptions=True)
        assert [one for one in got if not isinstance(one, Exception)] == [0, 1, 2, 4, 5]
        assert isinstance(got[3], StorageError)

    async def test_an_outage_fails_all_at_once(self) -> None:
        """A database out of reach is tried once for the batch, not once for each item."""
        calls = 0

        async def flush(items: Sequence[int]) -> list[int | Exception]:
            nonlocal calls
            calls += 1
            raise StorageUnavailableError("gone")

        batcher: Batcher[int, int] = Batcher(flush)
        got = await asyncio.gather(*(batcher.submit(number) for number in range(6)), return_exceptions=True)
        assert all(isinstance(one, StorageUnavailableError) for one in got)
        assert calls == 1

    async def test_who_gave_up_is_not_served(self) -> None:
        """An item whose caller left before its flush began is not stored."""
        stored: list[int] = []

        async def flush(items: Sequence[int]) -> list[int | Exception]:
            stored.extend(items)
            await asyncio.sleep(0)
            return list(items)

        batcher: Batcher[int, int] = Batcher(flush, largest=1)
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert stored == [0, 1]

    @given(st.lists(st.integers()), st.integers(1, 5), st.sets(st.integers()))
    async def test_everyone_gets_their_own_result(self, items: list[int], largest: int, bad: set[int]) -> None:
        """Whatever the sizes and failures, each caller gets the outcome of the own item."""

        async def flush(batch: Sequence[int]) -> list[int | Exception]:
            if any(item in bad for item in batch):
                raise ValueError("bad")
            return [item + 1 for item in batch]

        batcher: Batcher[int, int] = Batcher(flush, largest=largest)
        got = await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)
        for item, result in zip(items, got, strict=True):
            assert isinstance(result, ValueError) if item in bad else result == item + 1


async def test_closing_leaves_no_threads(tmp_path: Path) -> None:
    """A database that was closed has ended its threads."""
    before = set(threading.enumerate())
    database = Database(parse_database_url(f"sqlite:///{tmp_path}/x.db"))
    await migrate(database)
    await database.close()
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("sqlite")]
    assert not left
