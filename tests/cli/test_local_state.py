# ruff: noqa: ASYNC220 - starting a process blocks, briefly

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from supportfleet.errors import ClusterError
from supportfleet.local import state
from supportfleet.local.embedded import files


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUPPORTFLEET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


RECORD = state.Record(name="demo", provider="embedded", nodes=2, index=3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SUPPORTFLEET_HOME": "/a", "XDG_STATE_HOME": "/b"}, "/a"),
        ({"XDG_STATE_HOME": "/b"}, "/b/supportfleet"),
        ({"XDG_STATE_HOME": "relative"}, "~/.local/state/supportfleet"),
        ({}, "~/.local/state/supportfleet"),
    ],
)
def test_where_state_is(environ: dict[str, str], expected: str) -> None:
    """The state folder follows the environment in the documented order."""
    assert state.home(environ) == Path(expected).expanduser()


def test_what_is_saved_is_loaded() -> None:
    """A cluster is remembered as it was saved, and is among the known ones until it is forgotten."""
    assert state.load("demo") is None
    state.save(RECORD)
    state.save(replace(RECORD, complete=True))
    assert state.load("demo") == replace(RECORD, complete=True)
    assert [record.name for record in state.known()] == ["demo"]
    assert state.forget("demo")
    assert not state.forget("demo")
    assert state.load("demo") is None


@pytest.mark.parametrize("content", ["", '{"name": "de', "[]", '{"name": "demo"}', '{"unknown": 1}', "null"])
def test_damaged_state_says_what_to_do(content: str) -> None:
    """A half-written or foreign record is not guessed at: the error says how to make the cluster anew."""
    files.write(state.folder("demo") / "cluster.json", content)
    with pytest.raises(ClusterError, match="damaged") as caught:
        state.load("demo")
    assert "local down --name demo" in caught.value.remedy
    assert state.known() == []


def test_a_record_of_another_version_is_refused() -> None:
    """A record of a later schema is not misread."""
    state.save(replace(RECORD, schema=state.SCHEMA + 1))
    with pytest.raises(ClusterError, match="another version"):
        state.load("demo")


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    """A written file has its mode from the start, leaves no temporary one, and is not touched when it is the same."""
    path = tmp_path / "secret"
    assert files.write(path, "one")
    assert not files.write(path, "one")
    assert files.write(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


async def test_one_at_a_time(home: Path) -> None:
    """While one holds a cluster's lock another waits, and goes on when it is free; nothing stays behind."""
    order: list[str] = []

    async def work(name: str) -> None:
        async with state.locked("demo"):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(*(work(name) for name in "abc"))
    assert [line.split()[1] for line in order] == ["begins", "ends"] * 3
    assert list((home / "locks").iterdir()) == []


async def test_a_lock_that_is_held_too_long_is_named() -> None:
    """Who waits for too long is told which file is locked and how to find who holds it."""
    async with state.locked("demo"):
        with pytest.raises(ClusterError, match=r"demo\.lock") as caught:
            async with state.locked("demo", seconds=0):
                pytest.fail("two held it")
    assert "fuser" in caught.value.remedy


async def test_a_killed_holder_holds_nothing() -> None:
    """A process that is killed while it holds the lock keeps nobody out."""
    program = """
        import asyncio, sys
        from supportfleet.local import state
        async def main():
            async with state.locked("demo"):
                print("held", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ClusterError):
        async with state.locked("demo", seconds=0):
            pytest.fail("two held it")
    holder.kill()
    holder.communicate()
    async with state.locked("demo", seconds=5):
        pass
