"""Keeping the cache in step: lists, watches, and everything that can happen to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientTimeout

from supportfleet_operator.cluster import client as client_module
from supportfleet_operator.cluster import watch as watch_module
from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import CONFIG_MAPS, AgentKey
from supportfleet_operator.cluster.watch import Watcher, backoff

LABEL = "supportfleet.dev/agent"
DESK = AgentKey("shop", "desk")


def config_map(name: str, *, labelled: bool = True) -> dict[str, Any]:
    labels = {LABEL: "desk"} if labelled else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop", "labels": labels}}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(watch_module, "SHORT", 0.0)


@pytest.fixture
def cache(recorded: deque[Any], impatient: None) -> Cache:
    return Cache(LABEL, recorded.append)


@asynccontextmanager
async def running(client: Client, cache: Cache) -> AsyncIterator[Watcher]:
    watcher = Watcher(client, cache, CONFIG_MAPS, selector=LABEL)
    task = asyncio.create_task(watcher.run())
    try:
        await asyncio.wait_for(watcher.synced.wait(), 5)
        yield watcher
    finally:
        task.cancel()
        await asyncio.wait({task})


def names(cache: Cache) -> list[str]:
    return [one["metadata"]["name"] for one in cache.of_agent(DESK)]


async def test_what_is_there_and_what_happens_comes_in(api: Any, client: Client, cache: Cache, until: Any) -> None:
    """The first list, then additions and deletions, and only what carries the label."""
    api.put(config_map("before"))
    api.put(config_map("foreign", labelled=False))
    async with running(client, cache):
        assert names(cache) == ["before"]
        api.put(config_map("after"))
        api.remove(CONFIG_MAPS, "shop", "before")
        await until(lambda: names(cache) == ["after"])


async def test_a_dropped_watch_resumes_without_a_list(api: Any, client: Client, cache: Cache, until: Any) -> None:
    """What happened while the stream was down comes in when it is up again, from the version it had reached."""
    async with running(client, cache):
        await until(lambda: api.watches == 1)
        api.drop_watches()
        api.put(config_map("meanwhile"))
        await until(lambda: names(cache) == ["meanwhile"])
        assert api.lists == 1


async def test_gone_means_a_new_list(api: Any, client: Client, cache: Cache, until: Any) -> None:
    """With its version compacted away the watcher lists again, and notices what vanished unseen."""
    api.put(config_map("vanishes"))
    async with running(client, cache):
        await until(lambda: api.watches == 1)
        api.objects.clear()
        api.compact()
        await until(lambda: names(cache) == [])
        assert api.lists == 2


@pytest.mark.parametrize("status", [429, 500, 503, 403])
async def test_failures_are_survived(api: Any, client: Client, cache: Cache, until: Any, status: int) -> None:
    """Whatever the server answers for a while, the cache is right in the end."""
    api.fail(status, times=3, path="configmaps")
    async with running(client, cache):
        api.put(config_map("a"))
        await until(lambda: names(cache) == ["a"])
        api.fail(status, times=3, path="configmaps")
        api.drop_watches()
        api.put(config_map("b"))
        await until(lambda: names(cache) == ["a", "b"])


async def test_a_label_removed_by_hand_takes_the_child_out(
    api: Any, client: Client, cache: Cache, until: Any, recorded: deque[Any]
) -> None:
    """An object that the selector loses is gone for us, and its agent is told, to label it again."""
    stored = api.put(config_map("c"))
    async with running(client, cache):
        api.put(stored | {"data": {"a": "b"}})
        await until(lambda: cache.of_agent(DESK)[0].get("data"))
        recorded.clear()
        api.put({**stored, "metadata": {**stored["metadata"], "labels": {}}})
        await until(lambda: names(cache) == [])
        assert DESK in recorded


async def test_age_starts_anew_with_every_sign_of_life(api: Any, client: Client, cache: Cache, until: Any) -> None:
    """Bookmarks count: a quiet cluster is not a dead watch."""
    now = [0.0]
    watcher = Watcher(client, cache, CONFIG_MAPS, selector=LABEL, clock=lambda: now[0])
    task = asyncio.create_task(watcher.run())
    await asyncio.wait_for(watcher.synced.wait(), 5)
    now[0] = 100.0
    assert watcher.age == 100.0
    api.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other", "namespace": "shop"}})
    await until(lambda: watcher.age == 0.0)
    task.cancel()
    await asyncio.wait({task})


async def test_a_kind_that_never_changes_keeps_its_watch_alive(
    api: Any, client: Client, cache: Cache, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any event or bookmark the watch is opened again where it was, and that is sign of life enough."""
    monkeypatch.setattr(client_module, "WATCH_TIMEOUT", ClientTimeout(total=None, sock_read=0.1))
    monkeypatch.setattr(api, "bookmarks", False)
    async with running(client, cache) as watcher:
        await until(lambda: api.watches >= 5)
        assert watcher.age < 1.0
        assert api.lists == 1


async def test_a_stream_that_ends_at_once_is_not_opened_in_a_loop(
    api: Any, client: Client, cache: Cache, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that cuts every stream costs a few requests a minute, not thousands."""
    monkeypatch.setattr(watch_module, "SHORT", 1.0)
    monkeypatch.setattr(watch_module, "FIRST_DELAY", 0.1)
    api.fail(
        200, times=1000, path="configmaps", body={"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    )
    watcher = Watcher(client, cache, CONFIG_MAPS, selector=LABEL)
    watcher._version = "1"
    task = asyncio.create_task(watcher.run())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait({task})
    assert 1000 - api.faults[0].times <= 6


def test_backoff_doubles_to_a_bound() -> None:
    """Failures in a row wait longer and longer, but never more than half a minute, and jitter only shortens."""
    delays = [backoff(failures, 1.0) for failures in range(1, 15)]
    assert delays == sorted(delays)
    assert delays[-1] == watch_module.LONGEST_DELAY
    assert all(backoff(n, 0.0) == backoff(n, 1.0) / 2 for n in range(1, 15))
