from __future__ import annotations

import runpy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, insert, select, text, update

from supportfleet_runtime.errors import NotFoundError, StorageError
from supportfleet_runtime.queue.deadletters import DeadLetters
from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import audit_log, erasures, messages

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
Desk = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_conversations.py"))["Desk"]


@pytest.fixture
def desk(database: Database, clock: Any) -> Any:
    return Desk(database, clock)


async def logged(database: Database) -> list[Any]:
    """The audit log, oldest first."""
    query = select(audit_log).order_by(audit_log.c.id)
    return list(await database.read(lambda connection: connection.execute(query).all()))


async def with_one_row(database: Database) -> None:
    happened = audit.Event("something", NOON, "shop/helper", "ada", facts={"amount": 5})
    await database.write(lambda connection: audit.record(connection, [happened]))


def listen_to(database: Database) -> list[str]:
    """The statements that the database is given from now on."""
    statements: list[str] = []
    engine = database._backend._engine  # type: ignore[attr-defined]

    @event.listens_for(getattr(engine, "sync_engine", engine), "before_cursor_execute")
    def _note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    return statements


class TestWhatIsRecorded:
    async def test_a_message_and_its_answer(self, desk: Any, database: Database) -> None:
        """An accepted and answered message leaves two rows that say which, whose and how, and not what was written."""
        incoming = await desk.say("Where is my order, says Ada Lovelace")
        desk.clock.advance(2)
        await desk.reply(await desk.take(), "Private words", model="m-1", fallback_level=2)
        accepted, answered = await logged(database)
        assert (accepted.event, accepted.at, accepted.turn) == (audit.MESSAGE_ACCEPTED, incoming.received_at, 1)
        assert (answered.event, answered.at, answered.turn) == (audit.MESSAGE_ANSWERED, desk.clock(), 1)
        facts = {"intent": "refund", "source": "rules", "model": "m-1", "tools_enabled": False, "fallback_level": 2}
        assert answered.facts == facts
        for row in (accepted, answered):
            known = (row.scope, row.customer_id, row.conversation_id, row.task_id)
            assert known == ("shop/helper", "ada", incoming.conversation_id, incoming.task_id)
        assert not any(word in repr((accepted, answered)) for word in ("Lovelace", "Private"))

    async def test_what_did_not_happen_is_not_there(self, desk: Any, database: Database) -> None:
        """A message that is refused, and an answer that comes too late, leave no row."""
        with pytest.raises(NotFoundError):
            await desk.say("hello", "conv_unknown")
        await desk.say("hello")
        slow = await desk.take()
        desk.clock.advance(31)
        quick = await desk.take()
        assert not await desk.reply(slow)
        assert [row.event for row in await logged(database)] == [audit.MESSAGE_ACCEPTED]
        assert await desk.reply(quick)
        assert len(await logged(database)) == 2

    async def test_it_stands_or_falls_with_what_it_records(self, desk: Any, database: Database) -> None:
        """Where the audit log can't be written, the message is not accepted: there is never one without the other."""
        await database.write(lambda connection: connection.execute(text("ALTER TABLE audit_log RENAME TO elsewhere")))
        with pytest.raises(StorageError):
            await desk.say("hello")
        assert not await database.read(lambda connection: connection.execute(select(messages)).all())

    async def test_a_dead_letter_and_its_replay(self, desk: Any, database: Database, clock: Any) -> None:
        """Giving up and replaying are on record, each once, with the tries it took."""
        incoming = await desk.say("hello")
        await desk.reply(await desk.take(), dead=True)
        letters = DeadLetters(database, "shop/helper", now=clock)
        await letters.replay([incoming.task_id, incoming.task_id, "task_unknown"])
        rows = (await logged(database))[1:]
        assert [row.event for row in rows] == [audit.MESSAGE_ANSWERED, audit.TASK_DEAD, audit.TASK_REPLAYED]
        assert rows[1].facts == {"tries": 1}
        assert {(row.customer_id, row.task_id) for row in rows} == {("ada", incoming.task_id)}

    async def test_many_share_a_statement(self, desk: Any, database: Database) -> None:
        """However many messages share a transaction, the audit log costs it one statement."""
        await desk.say("the first to connect")
        statements = listen_to(database)
        await desk.intake._store([desk.message(f"hello {number}") for number in range(20)])
        assert sum("audit_log" in statement for statement in statements) == 1
        assert len(await logged(database)) == 21


class TestAppendOnly:
    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c.execute(delete(audit_log)),
            lambda c: c.execute(update(audit_log).values(event="nothing")),
            lambda c: c.execute(update(audit_log).values(customer_id="eve")),
            lambda c: c.execute(update(audit_log).values(customer_id=None)),
            lambda c: c.execute(update(audit_log).values(facts={"amount": 6})),
            lambda c: c.execute(update(audit_log).values(id=audit_log.c.id + 1)),
            lambda c: c.execute(
                text("TRUNCATE audit_log" if c.dialect.name == "postgresql" else "DELETE FROM audit_log")
            ),
        ],
    )
    async def test_no_row_is_changed_or_removed(self, database: Database, change: Callable[[Connection], Any]) -> None:
        """The database refuses to change or delete what is on record, whoever asks."""
        await with_one_row(database)
        before = await logged(database)
        with pytest.raises(StorageError):
            await database.write(change)
        assert await logged(database) == before

    @pytest.mark.parametrize(
        ("erasure", "values", "allowed"),
        [
            ({}, {"customer_id": "erased_1"}, True),
            ({}, {"customer_id": "erased_2"}, False),
            ({}, {"customer_id": "erased_1", "facts": {}}, False),
            ({"customer_id": "bob"}, {"customer_id": "erased_1"}, False),
            ({"customer_id": None}, {"customer_id": "erased_1"}, False),
            ({"scope": "shop/other"}, {"customer_id": "erased_1"}, False),
        ],
    )
    async def test_only_an_erasure_puts_its_pseudonym(
        self, database: Database, erasure: dict[str, Any], values: dict[str, Any], *, allowed: bool
    ) -> None:
        """A customer's id is replaced by their own erasure's pseudonym while that is under way, by nothing else."""
        await with_one_row(database)
        row = {"id": "erased_1", "scope": "shop/helper", "customer_id": "ada", "started_at": NOON, **erasure}
        await database.write(lambda connection: connection.execute(insert(erasures), row))
        change = update(audit_log).values(values)
        if allowed:
            await database.write(lambda connection: connection.execute(change))
        else:
            with pytest.raises(StorageError):
                await database.write(lambda connection: connection.execute(change))
        assert [row.customer_id for row in await logged(database)] == ["erased_1" if allowed else "ada"]
