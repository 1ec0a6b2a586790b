"""The runtime on a real PostgreSQL: what holds on SQLite holds here, and pods that share it work together.

The classes taken over below are the unit tier's own, run here with the fixtures of this folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import runpy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, literal_column, select, text

from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.queue.sql import SqlQueue
from supportfleet_runtime.storage import signals
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.keys import among
from supportfleet_runtime.storage.schema import conversations, tasks
from supportfleet_runtime.storage.url import parse_database_url

UNIT = Path(__file__).parents[1] / "agent_runtime"
TAKEN_OVER = {
    "test_storage.py": ("TestDatabase", "TestMigration"),
    "test_storage_keys.py": ("TestKeys",),
    "test_queue.py": ("setup", "TestLeasing", "TestOrder", "TestEnding"),
    "test_long_lane.py": ("TestTraces",),
    "test_conversations.py": ("desk", "TestIntake", "TestTurns", "TestViews"),
    "test_audit.py": ("TestWhatIsRecorded", "TestAppendOnly"),
    "test_escalations.py": ("calls", "TestCalling", "TestHandling"),
    "test_erasure.py": ("erasure", "TestErasing", "TestUnderWay"),
    "test_retention.py": ("retention", "TestSweep"),
    "test_app.py": ("TestSharing", "TestCrashes"),
    "test_gateway.py": ("agent", "TestMessages", "TestFuzz"),
    "test_tools_desk.py": ("shop", "TestRefunds", "TestOtherChanges"),
}
for _file, _names in TAKEN_OVER.items():
    _module = runpy.run_path(str(UNIT / _file))
    globals().update({name: _module[name] for name in _names})

DIGEST = "sha256:" + "a" * 64


async def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while not (value := await condition()):  # noqa: ASYNC110 - conditions of many kinds are awaited
            await asyncio.sleep(0.02)
        return value


class TestPlans:
    async def test_keys_are_looked_up_in_an_index(self, database: Database) -> None:
        """Ending leases, giving out turns and finding keys cost the same, however much is stored."""
        rows = range(5000)
        now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        fixed = {"scope": "s", "customer_id": "c", "turns": 1, "created_at": now, "updated_at": now}
        task = {"queue": "q", "turn": 1, "state": "done", "tries": 1, "visible_at": now, "created_at": now}

        def fill(connection: Connection) -> None:
            connection.execute(insert(conversations), [{"id": f"c{number}", **fixed} for number in rows])
            filled = [{"id": f"t{number}", "conversation_id": f"c{number}", **task} for number in rows]
            connection.execute(insert(tasks), filled)
            connection.execute(text("ANALYZE"))

        def plan(connection: Connection, chosen: Any, keys: str) -> str:
            statement = str(select(literal_column("1")).where(chosen).compile(dialect=connection.dialect))
            asked = re.sub(r"\$\d+::\w+", f"'{keys}'", statement)
            return "\n".join(connection.execute(text(f"EXPLAIN {asked}".replace(":", "\\:"))).scalars())

        await database.write(fill)
        plans = [
            await database.read(lambda connection, chosen=chosen, keys=keys: plan(connection, chosen, keys))
            for chosen, keys in (
                (among("ids_", tasks.c.id), '[["t1"],["t2"]]'),
                (among("keys_", tasks.c.id, tasks.c.tries), '[["t1",1],["t2",1]]'),
                (among("keys_", conversations.c.id, conversations.c.customer_id), '[["c1","c"],["c2","c"]]'),
            )
        ]
        for shown in plans:
            assert "Index" in shown
            assert "Seq Scan" not in shown


class TestSignals:
    async def test_who_waits_is_told_at_once(self, start_agent: Any) -> None:
        """A reply worked by another pod arrives by its signal, with looking switched off."""
        waiting = await start_agent(until_ready=False, MODEL_DIGEST=DIGEST)
        waiting.parts.waiters._poll = 3600
        await start_agent()
        await until(lambda: _schema_is_there(waiting))
        got = await asyncio.wait_for(waiting.say("Where is my order A-1001?"), 20)
        assert "DHL" in got["reply"]

    async def test_workers_are_told_where_nobody_has_room(self, start_agent: Any, database: Database) -> None:
        """A message that its own pod can't work wakes the others."""
        gateway = await start_agent(until_ready=False, MODEL_DIGEST=DIGEST)
        worker = await start_agent()
        await until(lambda: _schema_is_there(gateway))
        heard = 0
        notify = worker.parts.wakeup.notify

        def counting() -> None:
            nonlocal heard
            heard += 1
            notify()

        worker.parts.wakeup.notify = counting
        await until(lambda: _listens(database, 2))
        await gateway.say("Where is my order A-1001?")

        async def told() -> bool:
            return heard > 0

        await until(told)  # the worker may have looked by itself before it was told

    async def test_nobody_is_told_of_what_is_done_at_home(self, start_agent: Any, database: Database) -> None:
        """A message that its own pod works sends no signal: a fleet is not woken for nothing."""
        agent = await start_agent()
        heard: list[tuple[str, str]] = []
        listening = asyncio.create_task(signals.listen(database.url, 5, lambda *signal: heard.append(signal)))
        await until(lambda: _listens(database, 2))
        await until(lambda: _has_room(agent))
        await agent.say("Where is my order A-1001?")
        await database.write(lambda connection: signals.send(connection, "end", ["of test"]))
        await until(lambda: _is_heard(heard, ("end", "of test")))
        assert heard == [("end", "of test")]
        listening.cancel()


class TestOutages:
    @pytest.fixture
    def outage(self, postgresql: Any) -> Any:
        """Take the server away, and bring it back whatever happens."""

        @contextlib.contextmanager
        def away() -> Any:
            postgresql.stop()
            try:
                yield
            finally:
                postgresql.start()

        return away

    async def test_it_comes_back_by_itself(self, start_agent: Any, outage: Any, database: Database) -> None:
        """While the server is gone: 503 and not ready. When it is back: everything, without a restart."""
        agent = await start_agent()
        first = await agent.say("where is my order?")
        with outage():
            body = {"customer_id": "cust-1001", "text": "hello"}
            async with agent.client.post("/v1/messages", json=body) as got:
                assert got.status == 503
            assert (await agent.client.get("/readyz")).status == 503
            assert (await agent.client.get("/healthz")).status == 200
        await until(lambda: _is_ready(agent))
        told = await agent.say("A-1001", conversation_id=first["conversation_id"])
        assert "DHL" in told["reply"]
        await until(lambda: _listens(database, 1))

    async def test_connections_that_broke_unnoticed(self, start_agent: Any, database: Database) -> None:
        """Connections that the server ended while nobody used them cost no customer an error."""
        agent = await start_agent()
        await asyncio.gather(*(agent.say("hello") for _ in range(20)))
        end = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await database.read(lambda connection: connection.execute(end).scalar_one()) > 1
        await asyncio.gather(*(agent.say("hello") for _ in range(20)))

    async def test_it_starts_without_its_database(self, start_agent: Any, outage: Any) -> None:
        """A pod that starts first waits for the server, and is ready once it is there."""
        with outage():
            agent = await start_agent(until_ready=False)
            assert (await agent.client.get("/readyz")).status == 503
        await until(lambda: _is_ready(agent))
        await agent.say("hello")

    async def test_work_under_way_is_not_lost(self, start_agent: Any, messages_api: Any, outage: Any) -> None:
        """A message whose answer could not be stored is answered after the outage."""
        reached, release = asyncio.Event(), asyncio.Event()

        async def slow(request: Any) -> Any:
            reached.set()
            await release.wait()
            return messages_api.error(400)

        environ = {"ANTHROPIC_API_KEY": messages_api.key, "ANTHROPIC_BASE_URL": messages_api.url}
        agent = await start_agent(**environ, API_TIMEOUT_SECONDS="0", QUEUE_VISIBILITY="5", DB_TIMEOUT="1")
        messages_api.behaviours.append(slow)
        async with agent.client.post("/v1/messages", json={"customer_id": "c", "text": "boots?"}) as got:
            location = got.headers["Location"]
        await reached.wait()
        with outage():
            release.set()
            await asyncio.sleep(0.1)  # the answer is lost in here: that is what is tested
        done = await until(lambda: _done(agent, location), 60)
        assert done["reply"]


class TestScale:
    async def test_processes_share_a_queue_without_overlap(self, database_url: str, clock: Any, setup: Any) -> None:
        """Many workers with connections of their own take every item, and each exactly once."""
        await setup.put(*(f"c{number}x1" for number in range(200)))
        databases = [Database(parse_database_url(database_url)) for _ in range(4)]
        queues = [SqlQueue(one, "q", lease=30, now=clock) for one in databases for _ in range(3)]
        taken: list[str] = []

        async def work(queue: SqlQueue) -> None:
            while leases := await queue.receive(9):
                taken.extend(lease.id for lease in leases)

        await asyncio.gather(*(work(queue) for queue in queues))
        for one in databases:
            await one.close()
        assert len(taken) == len(set(taken)) == 200

    async def test_history_does_not_slow_the_queue(self, database: Database, clock: Any) -> None:
        """With many ended tasks, workers find the few waiting ones by the partial indexes."""
        now = clock()
        common = {"scope": "s", "customer_id": "c", "turns": 1, "created_at": now, "updated_at": now}
        task = {"queue": "q", "turn": 1, "state": "done", "tries": 1, "visible_at": now, "created_at": now}

        def fill(connection: Any) -> None:
            names = [f"c{number}" for number in range(5000)]
            connection.execute(insert(conversations), [{"id": name, **common} for name in names])
            connection.execute(insert(tasks), [{"id": name, "conversation_id": name, **task} for name in names])
            connection.execute(text("ANALYZE tasks"))

        def scans(connection: Any) -> tuple[int, int]:
            """Index scans of the queue's index, and scans of the whole table."""
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            by_index = text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'tasks_due'")
            whole = text("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'tasks'")
            return connection.execute(by_index).scalar_one(), connection.execute(whole).scalar_one()

        await database.write(fill)
        await database.read(scans)  # what was counted so far is flushed with the next look
        before = await database.read(scans)
        queue = SqlQueue(database, "q", lease=30, now=clock)
        for _ in range(3):
            assert not await queue.receive(100)
            assert await queue.depth() == 0
        await database.read(scans)
        after = await database.read(scans)
        assert after[0] >= before[0] + 6
        assert after[1] == before[1]

    async def test_a_deadlock_costs_nobody_anything(self, database: Database, clock: Any) -> None:
        """Two transactions that lock each other out are both done in the end."""
        common = {"scope": "s", "customer_id": "c", "turns": 0, "created_at": clock(), "updated_at": clock()}
        rows = [{"id": name, **common} for name in ("a", "b")]
        await database.write(lambda connection: connection.execute(insert(conversations), rows))
        tries: list[str] = []
        held: set[str] = set()

        def raise_both(first: str, second: str) -> Callable[[Any], None]:
            def work(connection: Any) -> None:
                tries.append(first)
                one = text("UPDATE conversations SET turns = turns + 1 WHERE id = :id")
                connection.execute(one, {"id": first})
                held.add(first)
                while second not in held:
                    connection.execute(text("SELECT pg_sleep(0.02)"))
                connection.execute(one, {"id": second})

            return work

        await asyncio.gather(database.write(raise_both("a", "b")), database.write(raise_both("b", "a")))
        turns = text("SELECT sum(turns) FROM conversations")
        assert await database.read(lambda connection: connection.execute(turns).scalar_one()) == 4
        assert len(tries) > 2, "there was a deadlock"

    async def test_a_pool_that_is_used_up_is_unavailable(self, database_url: str) -> None:
        """More callers than connections wait for the time limit, not for ever."""
        small = Database(parse_database_url(database_url), pool=2, timeout=0.5)
        slow = [small.read(lambda connection: connection.execute(text("SELECT pg_sleep(5)"))) for _ in range(4)]
        outcomes = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(outcome, StorageUnavailableError) for outcome in outcomes)
        await small.close()


async def test_a_wrong_password_is_told_without_it(postgresql: Any) -> None:
    """A database that refuses the user makes an error that names neither user nor password."""
    url = f"postgresql://nobody:hunter2@127.0.0.1:{postgresql.port}/nothing"
    refused = Database(parse_database_url(url))
    with pytest.raises(StorageUnavailableError) as raised:
        await refused.read(lambda connection: connection.execute(text("SELECT 1")))
    assert "hunter2" not in str(raised.value)
    await refused.close()


async def _schema_is_there(agent: Any) -> bool:
    return agent.parts.progress.schema is None


async def _has_room(agent: Any) -> bool:
    return bool(agent.parts.wakeup.has_room)


async def _is_heard(heard: list[tuple[str, str]], signal: tuple[str, str]) -> bool:
    return signal in heard


async def _is_ready(agent: Any) -> bool:
    return bool((await agent.client.get("/readyz")).status == 200)


async def _listens(database: Database, number: int) -> bool:
    """Whether so many connections listen for signals."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
    try:
        return bool(await database.read(lambda connection: connection.execute(query).scalar_one()) == number)
    except StorageUnavailableError:
        return False


async def _done(agent: Any, location: str) -> Any:
    async with agent.client.get(location) as got:
        task = await got.json() if got.status == 200 else {}
    return task if task.get("status") == "done" else None
