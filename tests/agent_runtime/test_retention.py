from __future__ import annotations

import asyncio
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from supportfleet_runtime.storage import audit
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.ids import first_id, new_id
from supportfleet_runtime.storage.migrate import migrate
from supportfleet_runtime.storage.retention import BATCH, Retention
from supportfleet_runtime.storage.schema import audit_log, conversations, messages
from supportfleet_runtime.storage.url import parse_database_url

SCOPE = "shop/helper"
DAY = 86_400
Desk = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_conversations.py"))["Desk"]


@pytest.fixture
def desk(database: Database, clock: Any) -> Any:
    return Desk(database, clock, SCOPE)


@pytest.fixture
def retention(database: Database, clock: Any) -> Retention:
    return Retention(database, SCOPE, 30, now=clock)


async def answered(desk: Any, conversation: str | None = None) -> str:
    """A message and its reply; the conversation."""
    said = await desk.say("hello", conversation)
    await desk.reply(await desk.take())
    return str(said.conversation_id)


async def kept(database: Database) -> set[str]:
    return await database.read(lambda connection: set(connection.execute(select(conversations.c.id)).scalars()))


class TestSweep:
    async def test_only_what_is_too_old_goes(self, desk: Any, database: Database, retention: Retention) -> None:
        """A conversation goes with its messages that many days after its last message, not its first."""
        old, continued = await answered(desk), await answered(desk)
        desk.clock.advance(29 * DAY)
        await answered(desk, continued)
        assert await retention.sweep() == 0
        desk.clock.advance(1 * DAY + 1)
        young = await answered(desk)
        assert await retention.sweep() == 1
        assert await kept(database) == {continued, young}
        assert old not in await database.read(lambda c: set(c.execute(select(messages.c.conversation_id)).scalars()))
        assert await retention.sweep() == 0

    async def test_what_still_waits_for_a_worker_stays(
        self, desk: Any, database: Database, retention: Retention
    ) -> None:
        """A message that nobody has answered yet is not dropped, however old."""
        await desk.say("hello")
        desk.clock.advance(31 * DAY)
        assert await retention.sweep() == 0
        await desk.reply(await desk.take())
        desk.clock.advance(31 * DAY)
        assert await retention.sweep() == 1

    async def test_another_agents_stay(self, desk: Any, database: Database, clock: Any) -> None:
        """An agent's limit is for its own conversations."""
        mine = await answered(desk)
        desk.clock.advance(31 * DAY)
        assert await Retention(database, "shop/other", 30, now=clock).sweep() == 0
        assert await kept(database) == {mine}

    async def test_it_goes_by_batches_and_is_on_record(
        self, desk: Any, database: Database, retention: Retention
    ) -> None:
        """Many go in several transactions; the audit log has how many, and the cache is told which."""
        told: list[str] = []

        async def forget(ids: Any) -> None:
            told.extend(ids)

        retention._forget = forget
        for _ in range(2):
            await asyncio.gather(*(desk.say("hello") for _ in range(70)))
        for lease in await desk.queue.receive(200):
            await desk.reply(lease)
        every = await kept(database)
        desk.clock.advance(31 * DAY)
        assert await retention.sweep() == 140
        assert set(told) == every
        query = select(audit_log.c.facts).where(audit_log.c.event == audit.CONVERSATIONS_EXPIRED)
        facts = await database.read(lambda connection: connection.execute(query).scalars().all())
        assert [one["conversations"] for one in facts] == [BATCH, 40]

    async def test_pods_do_not_disturb_each_other(
        self, desk: Any, database: Database, database_url: str, clock: Any
    ) -> None:
        """Several pods that sweep at once remove each conversation once, and none fails."""
        await asyncio.gather(*(desk.say("hello") for _ in range(250)))
        for _ in range(3):
            for lease in await desk.queue.receive(100):
                await desk.reply(lease)
        desk.clock.advance(31 * DAY)
        others = [Database(parse_database_url(database_url)) for _ in range(3)]
        for other in others:
            await migrate(other)
        removed = await asyncio.gather(
            *(Retention(other, SCOPE, 30, now=clock).sweep() for other in (database, *others))
        )
        left = await Retention(database, SCOPE, 30, now=clock).sweep()
        assert sum(removed) + left == 250
        for other in others:
            await other.close()

    async def test_a_running_agent_sweeps(self, start_agent: Any, database: Database) -> None:
        """With RETENTION_DAYS an agent removes what is old by itself, soon after it is ready."""
        agent = await start_agent(RETENTION_DAYS="1")
        assert (await agent.say("hello"))["reply"]
        assert await kept(agent.parts.database)
        never = await start_agent()
        assert never.parts.settings.retention_days is None


class TestIds:
    def test_the_first_of_a_moment(self, clock: Any) -> None:
        """What was made before a moment is less than its first id, what is made then or later is not."""
        moment = clock()
        before = new_id("conv", moment - timedelta(milliseconds=1))
        assert before < first_id("conv", moment) <= new_id("conv", moment)
