from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import select

from supportfleet_runtime import deadletters_command
from supportfleet_runtime.queue.deadletters import DeadLetters
from supportfleet_runtime.storage.schema import AGENT, messages, tasks


@pytest.fixture
async def broken(start_agent: Any) -> Any:
    """An agent one of whose messages could not be answered, and is now mended."""
    agent = await start_agent(QUEUE_MAX_TRIES="1")
    handle = agent.parts.worker._handle

    async def fail(_lease: Any) -> None:
        raise ValueError("private words of a customer")

    agent.parts.worker._handle = fail
    agent.dead = await agent.say("Where is my order A-1001?")
    agent.parts.worker._handle = handle
    return agent


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    deadletters_command.add_arguments(parser)
    return parser.parse_args(arguments)


async def replies(agent: Any) -> list[str]:
    query = select(messages.c.text).where(messages.c.role == AGENT)
    return list(await agent.parts.database.read(lambda connection: connection.execute(query).scalars().all()))


class TestDeadLetters:
    async def test_it_is_listed_without_what_was_said(self, broken: Any, clock: Any) -> None:
        """A dead letter says which message, how often it was tried and when it ended, and nothing of its text."""
        (letter,) = await DeadLetters(broken.parts.database, "default/default", now=clock).latest(10)
        assert (letter.task_id, letter.turn, letter.tries) == (broken.dead["task_id"], 1, 1)
        assert letter.died_at
        assert "order" not in repr(letter)

    async def test_replaying_puts_the_right_reply_in_place(self, broken: Any, clock: Any) -> None:
        """A replayed message is answered once more, and its conversation holds that reply alone."""
        assert broken.dead["fallback_level"] == 4
        letters = DeadLetters(broken.parts.database, "default/default", now=clock)
        assert await letters.replay([broken.dead["task_id"], "task_unknown"]) == {broken.dead["task_id"]}
        broken.parts.wakeup.notify()
        assert await _answered(broken)
        assert not await letters.latest(10)
        assert len(await replies(broken)) == 1

    async def test_another_agents_are_out_of_reach(self, broken: Any, clock: Any) -> None:
        """An agent's dead letters are neither shown to nor replayed by another that shares its database."""
        other = DeadLetters(broken.parts.database, "default/other", now=clock)
        assert not await other.latest(10)
        assert not await other.replay([broken.dead["task_id"]])

    async def test_what_is_no_dead_letter_is_left_alone(self, broken: Any, clock: Any) -> None:
        """A message that was answered can't be replayed: its reply stays."""
        good = await broken.say("hello")
        letters = DeadLetters(broken.parts.database, "default/default", now=clock)
        assert not await letters.replay([good["task_id"]])
        assert len(await replies(broken)) == 2


class TestCommand:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: Any, database_url: str, tmp_path: Any) -> None:
        for name, value in {"DATABASE_URL": database_url, "CONFIG_DIR": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)

    async def run(self, *arguments: str) -> int:
        """Run it as a process would: with a loop of its own, beside the agent's."""
        return await asyncio.to_thread(deadletters_command.run, command(*arguments))

    async def test_list_and_replay(self, broken: Any, capsys: Any) -> None:
        """What ``list`` shows ``replay`` takes, and then it is shown no more."""
        capsys.readouterr()
        assert await self.run("list", "-o", "json") == 0
        (shown,) = json.loads(capsys.readouterr().out)
        assert shown["task_id"] == broken.dead["task_id"]
        assert await self.run("list") == 0
        assert shown["task_id"] in capsys.readouterr().out
        assert await self.run("replay", "--all") == 0
        assert f"{shown['task_id']} replayed" in capsys.readouterr().out
        await _answered(broken)
        assert await self.run("list", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == []

    async def test_an_unknown_id_is_told(self, broken: Any, capsys: Any) -> None:
        """Replaying what is no dead letter says so, with exit code 1."""
        assert await self.run("replay", "task_unknown", broken.dead["task_id"]) == 1
        assert "task_unknown is no dead letter" in capsys.readouterr().out

    @pytest.mark.parametrize("arguments", [("replay",), ("replay", "--all", "t"), ("list", "--limit", "0"), ()])
    def test_bad_arguments_are_refused(self, arguments: tuple[str, ...]) -> None:
        """What can't be meant ends with usage and exit code 2."""
        with pytest.raises(SystemExit) as ended:
            command(*arguments)
        assert ended.value.code == 2


async def _answered(agent: Any) -> bool:
    """Wait until no task is unfinished, and say whether the order's carrier was told."""
    query = select(tasks.c.id).where(tasks.c.state.in_(("ready", "leased")))
    async with asyncio.timeout(20):
        while await agent.parts.database.read(lambda connection: connection.execute(query).scalars().all()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return any("DHL" in text for text in await replies(agent))
