"""The cache: where it is, its locks, and files that appear in it whole."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet.local import cache


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SUPPORTFLEET_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, Path("/own")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/supportfleet")),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache/supportfleet"),
        ({}, Path.home() / ".cache/supportfleet"),
    ],
)
def test_root(environ: dict[str, str], expected: Path) -> None:
    """Our own variable wins over XDG's, an XDG path that is relative is ignored, and the default is under home."""
    assert cache.root(environ) == expected


@given(st.lists(st.text()), st.lists(st.text()))
def test_digest_tells_lists_apart(one: list[str], other: list[str]) -> None:
    """Two lists of parts share a key exactly if they are equal: no part can run into the next."""
    assert (cache.digest(*one) == cache.digest(*other)) == (one == other)


async def test_lock_is_exclusive_and_says_who_holds_it(tmp_path: Path) -> None:
    """While one holds a lock the other is told by whom, and gives up after its timeout with a remedy."""
    told: list[str] = []
    async with cache.locked("thing", timeout_s=5, folder=tmp_path):
        with pytest.raises(cache.CacheError, match=str(os.getpid())) as caught:
            async with cache.locked("thing", timeout_s=0.1, on_wait=told.append, folder=tmp_path):
                pytest.fail("two held one lock")
    assert "try again" in caught.value.remedy
    assert len(told) == 1
    async with cache.locked("thing", timeout_s=0.1, folder=tmp_path):
        pass


async def test_locks_of_different_names_do_not_meet(tmp_path: Path) -> None:
    """Two things can be made at once."""
    async with cache.locked("one", timeout_s=1, folder=tmp_path), cache.locked("two", timeout_s=1, folder=tmp_path):
        pass


async def test_child_keeps_the_lock(tmp_path: Path) -> None:
    """A child that inherited the lock holds it until it ends, though the parent's descriptor is closed."""
    async with cache.locked("thing", timeout_s=1, folder=tmp_path) as descriptor:
        child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, pass_fds=[descriptor])
    with pytest.raises(cache.CacheError):
        async with cache.locked("thing", timeout_s=0.1, folder=tmp_path):
            pytest.fail("the child lost the lock")
    await child.communicate(b"")
    async with cache.locked("thing", timeout_s=5, folder=tmp_path):
        pass


async def test_waiting_for_a_lock_can_be_cancelled(tmp_path: Path) -> None:
    """Ctrl-C while waiting ends the wait, and the lock is still the holder's."""
    async with cache.locked("thing", timeout_s=1, folder=tmp_path):
        waiting = asyncio.create_task(_hold(tmp_path))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def _hold(folder: Path) -> None:
    async with cache.locked("thing", timeout_s=60, folder=folder):
        pass


def test_publish_replaces_whole(tmp_path: Path) -> None:
    """A published file has its content and nothing stays beside it."""
    final = tmp_path / "final"
    final.write_text("old")
    temporary = tmp_path / ".temporary"
    temporary.write_text("new")
    cache.publish(temporary, final)
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert final.read_text() == "new"


def test_publish_dir_takes_an_incomplete_ones_place(tmp_path: Path) -> None:
    """A folder that lacks something is replaced by the finished one."""
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "half").touch()
    (tmp_path / ".temporary").mkdir()
    (tmp_path / ".temporary" / "whole").touch()
    cache.publish_dir(tmp_path / ".temporary", tmp_path / "final")
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["whole"]


def test_space_is_measured_where_the_folder_will_be(tmp_path: Path) -> None:
    """A folder that does not exist yet is judged by the disk it will be on, and the error names a way out."""
    cache.require_space(tmp_path / "not" / "there", 0, "this")
    with pytest.raises(cache.CacheError, match=r"this needs 1099511627776 MiB") as caught:
        cache.require_space(tmp_path / "not" / "there", 2**40, "this")
    assert "SUPPORTFLEET_CACHE" in caught.value.remedy


def test_unwritable_cache_names_the_variable(tmp_path: Path) -> None:
    """A cache that can't be created says which variable moves it."""
    (tmp_path / "file").touch()
    with pytest.raises(cache.CacheError, match="SUPPORTFLEET_CACHE"):
        cache.make_dir(tmp_path / "file" / "below")
