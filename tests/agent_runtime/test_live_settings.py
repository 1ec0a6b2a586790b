"""agent_config.json: what changes in it takes effect with the next message."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.agent.live_settings import LiveSettings
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.observability.logs import configure_logging


@pytest.fixture
async def follow(tmp_path: Path) -> AsyncIterator[Callable[[Path | None], LiveSettings]]:
    """Follow a file of the temporary folder."""
    tasks: list[asyncio.Task[None]] = []

    def start(file: Path | None) -> LiveSettings:
        live = LiveSettings(AgentSettings())
        tasks.append(asyncio.create_task(live.follow(file, tmp_path, poll=0.01)))
        return live

    yield start
    for task in tasks:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def company(live: LiveSettings, wanted: str) -> None:
    async with asyncio.timeout(20):
        while live().company != wanted:  # noqa: ASYNC110 - settings set no event
            await asyncio.sleep(0.005)


def write(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values))


async def test_a_changed_file_takes_effect(tmp_path: Path, follow: Any) -> None:
    """A file that appears, or is written anew, holds from then on."""
    live = follow(None)
    await asyncio.sleep(0.03)
    write(tmp_path / "agent_config.json", company="One")
    await company(live, "One")
    write(tmp_path / "agent_config.json", company="Two and more")
    await company(live, "Two and more")


async def test_a_config_maps_folder(tmp_path: Path, follow: Any) -> None:
    """The link that a ConfigMap's volume moves is noticed."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "mine.json", company=name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "mine.json").symlink_to("..data/mine.json")
    live = follow(Path("mine.json"))
    await asyncio.sleep(0.03)
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(tmp_path / "..data")
    await company(live, "two")


async def test_a_broken_file_changes_nothing(tmp_path: Path, follow: Any) -> None:
    """A file that can't be used, or goes away, leaves what holds; the log says what is wrong with it."""
    output = io.StringIO()
    configure_logging("info", output)
    live = follow(None)
    await asyncio.sleep(0.03)
    path = tmp_path / "agent_config.json"
    write(path, company="One")
    await company(live, "One")
    write(path, company="", history={"maxTurns": -1}, surprise=True)
    async with asyncio.timeout(20):
        while "configuration_not_changed" not in output.getvalue():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert all(word in output.getvalue() for word in ("company", "history.maxTurns", "surprise"))
    path.unlink()
    await asyncio.sleep(0.05)
    assert live().company == "One"
    write(path, company="Two")
    await company(live, "Two")


async def test_an_agent_at_work(start_agent: Any, tmp_path: Path) -> None:
    """The next message is answered by the new configuration: rules, replies and thresholds."""
    agent = await start_agent()
    assert (await agent.say("hello"))["source"] == "rules"
    write(tmp_path / "agent_config.json", greeting="Ahoy!")
    async with asyncio.timeout(20):
        while (await agent.say("hello"))["reply"] != "Ahoy!":  # noqa: ASYNC110 - replies set no event
            await asyncio.sleep(0.05)
    write(tmp_path / "agent_config.json", rules={"intents": []})
    async with asyncio.timeout(20):
        while (await agent.say("hello"))["source"] != "model":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
