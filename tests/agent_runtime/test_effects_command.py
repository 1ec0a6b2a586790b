from __future__ import annotations

import argparse
import asyncio
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from supportfleet_runtime import effects_command
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import audit_log
from supportfleet_runtime.tools.outcome import unknown

SHOP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "tools_shop.py")))


class Silent:
    """Tools that never say what they did."""

    available = True

    async def perform(self, _request: Any, *, within: float) -> Any:
        return unknown()

    async def effect(self, _key: str, *, within: float) -> None:
        return None


@pytest.fixture
async def shop(database: Database, clock: Any, monkeypatch: Any, database_url: str, tmp_path: Path) -> Any:
    """An agent with an effect that nobody knows of."""
    for name, value in {"DATABASE_URL": database_url, "CONFIG_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    made = SHOP.make_shop(database, clock, backend=Silent())
    assert (await made.refund()).status == "ambiguous"
    return made


def command(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    effects_command.add_arguments(parser)
    return parser.parse_args(arguments)


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(effects_command.run, command(*arguments))


async def listed(capsys: Any) -> list[Any]:
    capsys.readouterr()
    assert await run("list", "-o", "json") == 0
    shown: list[Any] = json.loads(capsys.readouterr().out)
    return shown


@pytest.mark.parametrize(("option", "state"), [("--done", "done"), ("--not-done", "refused")])
async def test_a_person_says_whether_it_was_done(shop: Any, capsys: Any, option: str, state: str) -> None:
    """What a person found out ends the effect, is told to a repetition, and is in the audit log with their name."""
    (one,) = await listed(capsys)
    assert (one["tool"], one["task_id"]) == ("refund", "task_1")
    assert await run("resolve", one["key"], option, "--person", "bea") == 0
    assert await listed(capsys) == []
    assert await shop.states() == {"task_1": state}
    again = await shop.refund()
    assert (again.status, again.needs_person) == (state, False)
    settled, row = await shop.database.read(lambda c: c.execute(select(audit_log)).all())
    assert (settled.event, settled.facts["state"]) == ("effect_settled", "ambiguous")
    assert (row.event, row.customer_id, row.task_id) == ("effect_resolved", "cust-1001", "task_1")
    assert row.facts == {"key": one["key"], "tool": "refund", "done": option == "--done", "person": "bea"}


async def test_what_is_known_stays(shop: Any, capsys: Any, monkeypatch: Any) -> None:
    """An effect that is known, unknown here or another agent's is refused with the reason and exit code 1."""
    (one,) = await listed(capsys)
    monkeypatch.setenv("AGENT_NAME", "other")
    assert await run("resolve", one["key"], "--done", "--person", "eve") == 1
    assert "no such effect" in capsys.readouterr().err
    monkeypatch.delenv("AGENT_NAME")
    assert await run("resolve", one["key"], "--not-done", "--person", "bea") == 0
    assert await run("resolve", one["key"], "--done", "--person", "carl") == 1
    assert "it is not ambiguous" in capsys.readouterr().err
    assert await shop.states() == {"task_1": "refused"}


@pytest.mark.parametrize(
    "arguments",
    [("resolve", "k", "--done"), ("resolve", "k", "--person", "bea"), ("resolve", "k", "--done", "--person", " "), ()],
)
def test_bad_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    """What can't be meant ends with usage and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == 2
