"""Requests to the API server: what is sent, what failures mean, and that patience is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from supportfleet_operator.cluster import client as client_module
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    STORAGE_CLASSES,
    SUPPORT_AGENTS,
    ObjectRef,
)
from supportfleet_operator.errors import Busy, Conflict, Forbidden, Gone, Invalid, NotFound, Unauthorized, Unreachable


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data}


class TestReading:
    async def test_an_absent_object_is_none(self, api: Any, client: Client) -> None:
        """get() tells absence by None, not by an exception."""
        assert await client.get(CONFIG_MAPS, "shop", "none") is None

    async def test_pages_hold_everything_with_its_kind(self, api: Any, client: Client) -> None:
        """A list in pages gives each object once, with the kind that lists leave out, and the list's version."""
        for number in range(7):
            api.put(config_map(f"c{number}"))
        pages = [page async for page in client.list_pages(CONFIG_MAPS, "shop", limit=3)]
        assert [len(page.items) for page in pages] == [3, 3, 1]
        assert [item["metadata"]["name"] for page in pages for item in page.items] == [f"c{n}" for n in range(7)]
        assert {item["kind"] for page in pages for item in page.items} == {"ConfigMap"}
        assert pages[-1].resource_version == str(api.version)
        assert [page.last for page in pages] == [False, False, True]

    async def test_a_selector_is_sent(self, api: Any, client: Client) -> None:
        """Only objects with the label come back."""
        api.put(config_map("bare"))
        labelled = config_map("labelled")
        labelled["metadata"]["labels"] = {"app": "x"}
        api.put(labelled)
        pages = [page async for page in client.list_pages(CONFIG_MAPS, None, "app=x")]
        assert [item["metadata"]["name"] for page in pages for item in page.items] == ["labelled"]

    async def test_the_crd_is_found_by_discovery(self, api: Any, client: Client) -> None:
        """served() knows a kind that the server lists."""
        assert await client.served(SUPPORT_AGENTS)


class TestWriting:
    async def test_apply_names_the_holder_of_a_field(self, api: Any, client: Client) -> None:
        """A conflict carries the other manager's name and the field."""
        await client.apply(config_map("c", colour="red"), manager="painter")
        with pytest.raises(Conflict) as caught:
            await client.apply(config_map("c", colour="blue"))
        (cause,) = caught.value.causes
        assert cause.field == ".data.colour"
        assert '"painter"' in cause.message

    async def test_force_takes_the_field(self, api: Any, client: Client) -> None:
        """With force the value is ours."""
        await client.apply(config_map("c", colour="red"), manager="painter")
        answer = await client.apply(config_map("c", colour="blue"), force=True)
        assert answer["data"] == {"colour": "blue"}

    async def test_delete_spares_a_successor(self, api: Any, client: Client) -> None:
        """An object of the same name with another uid is not deleted."""
        api.put(config_map("c"))
        with pytest.raises(Conflict):
            await client.delete(ObjectRef("ConfigMap", "shop", "c"), uid="another")
        assert api.get(CONFIG_MAPS, "shop", "c")

    async def test_deleting_what_is_gone_is_no_error(self, api: Any, client: Client) -> None:
        """delete() says whether there was anything."""
        assert not await client.delete(ObjectRef("ConfigMap", "shop", "c"), uid="x")
        uid = api.put(config_map("c"))["metadata"]["uid"]
        assert await client.delete(ObjectRef("ConfigMap", "shop", "c"), uid=uid)


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, Invalid),
            (401, Unauthorized),
            (403, Forbidden),
            (404, NotFound),
            (409, Conflict),
            (410, Gone),
            (422, Invalid),
            (429, Busy),
            (500, Busy),
            (503, Busy),
            (504, Busy),
        ],
    )
    async def test_each_status_has_its_error(self, api: Any, client: Client, status: int, kind: type) -> None:
        """The class of the error says what to do about it, and its text is the server's."""
        api.fail(status, body={"message": "because", "reason": "Why"})
        with pytest.raises(kind, match="because") as caught:
            await client.apply(config_map("c"))
        assert caught.value.status == status
        assert caught.value.reason == "Why"

    async def test_nothing_is_retried_below_the_caller(self, api: Any, client: Client) -> None:
        """One call is one request, whatever comes back: the caller owns the retry."""
        api.fail(500, times=5)
        with pytest.raises(Busy):
            await client.apply(config_map("c"))
        assert len(api.requests) == 1

    async def test_retry_after_travels_and_slows_the_bulk(self, api: Any, client: Client) -> None:
        """A 429 carries its Retry-After, holds back ordinary requests for so long, and lets urgent ones pass."""
        api.fail(429, headers={"Retry-After": "1"})
        with pytest.raises(Busy) as caught:
            await client.apply(config_map("c"))
        assert caught.value.retry_after == 1.0
        loop = asyncio.get_running_loop()
        started = loop.time()
        ordinary = asyncio.create_task(client.apply(config_map("c")))
        await client.apply(config_map("urgent"), urgent=True)
        assert loop.time() - started < 0.5
        await ordinary
        assert loop.time() - started >= 0.9

    async def test_an_answer_that_is_no_json_is_an_error_with_its_text(self, api: Any, client: Client) -> None:
        """A proxy's page in place of a Status does not break the error."""
        api.fail(502, body="<html>bad gateway</html>")
        with pytest.raises(Busy):
            await client.get(CONFIG_MAPS, "shop", "c")

    async def test_nobody_listening_is_unreachable(self, api: Any, client: Client) -> None:
        """A refused connection is Unreachable, not an aiohttp error."""
        client._connection.session  # noqa: B018 - the session outlives the server
        object.__setattr__(client._connection, "server", "http://127.0.0.1:9")
        with pytest.raises(Unreachable):
            await client.get(CONFIG_MAPS, "shop", "c")


class TestWatching:
    async def test_events_follow_from_a_version(self, api: Any, client: Client) -> None:
        """A watch tells what happened after its version, in order, with bookmarks."""
        api.put(config_map("before"))
        version = str(api.version)
        api.put(config_map("a"))
        api.remove(CONFIG_MAPS, "shop", "a")
        seen = []
        async for event in client.watch(CONFIG_MAPS, None, "", version):
            seen.append((event.type, event.object["metadata"].get("name")))
            if event.type == "BOOKMARK":
                break
        assert seen == [("ADDED", "a"), ("DELETED", "a"), ("BOOKMARK", None)]

    async def test_an_old_version_is_gone(self, api: Any, client: Client) -> None:
        """410 as an answer is Gone."""
        api.compact()
        with pytest.raises(Gone):
            await anext(client.watch(CONFIG_MAPS, None, "", "1"))

    async def test_an_error_event_is_raised(self, api: Any, client: Client) -> None:
        """410 within the stream is Gone as well: that is how the API server says it of an open watch."""
        event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}}
        api.fail(200, path="configmaps", body=event)
        with pytest.raises(Gone):
            await anext(client.watch(CONFIG_MAPS, None, "", "1"))

    async def test_silence_is_death(self, api: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream that says nothing, not even a bookmark, ends as Unreachable."""
        from aiohttp import ClientTimeout  # noqa: PLC0415 - only here

        monkeypatch.setattr(client_module, "WATCH_TIMEOUT", ClientTimeout(total=None, sock_read=0.2))
        watch = client.watch(CONFIG_MAPS, None, "", str(api.version))
        assert (await anext(watch)).type == "BOOKMARK"
        with pytest.raises(Unreachable):
            await anext(watch)

    async def test_an_object_larger_than_any_buffer_arrives_whole(self, api: Any, client: Client) -> None:
        """Lines are as long as objects are."""
        version = str(api.version)
        api.put(config_map("large", text="x" * 1_500_000))
        event = await anext(client.watch(CONFIG_MAPS, None, "", version))
        assert len(event.object["data"]["text"]) == 1_500_000


def test_paths_follow_scope() -> None:
    """Cluster-scoped kinds have no namespace in their path, core kinds no group."""
    assert DEPLOYMENTS.path("shop", "a", "status") == "/apis/apps/v1/namespaces/shop/deployments/a/status"
    assert CONFIG_MAPS.path("shop") == "/api/v1/namespaces/shop/configmaps"
    assert CONFIG_MAPS.path() == "/api/v1/configmaps"
    assert STORAGE_CLASSES.path("shop", "fast") == "/apis/storage.k8s.io/v1/storageclasses/fast"


async def test_requests_are_recorded_with_their_code(api: Any, client: Client, until: Callable[..., Any]) -> None:
    """Metrics learn the verb, the resource and the code of each request, failures included."""
    seen: list[tuple[str, str, str]] = []
    client._record = lambda verb, resource, code, _: seen.append((verb, resource, code))
    await client.get(CONFIG_MAPS, "shop", "none")
    await client.apply(config_map("c"))
    assert seen == [("get", "configmaps", "404"), ("apply", "configmaps", "200")]
