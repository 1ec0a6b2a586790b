"""The requests to the API server, against a server that speaks as one does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from supportfleet.errors import KubernetesError
from supportfleet.local.embedded.api import Api

Seen = list[tuple[str, str, str, Any]]


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
async def api(seen: Seen) -> AsyncIterator[Api]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.text()
        seen.append((request.method, str(request.rel_url), request.content_type, json.loads(body) if body else None))
        if "missing" in request.path:
            return web.json_response({"kind": "Status", "message": "not found"}, status=404)
        if "forbidden" in request.path:
            return web.json_response({"kind": "Status", "message": "no right to it"}, status=403)
        if "broken" in request.path:
            return web.Response(text="<html>bad gateway</html>", status=502)
        return web.json_response({"kind": "ok"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        yield Api(session, f"http://127.0.0.1:{port}")
    await runner.cleanup()


def manifest(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def test_applying_is_server_side(api: Api, seen: Seen) -> None:
    """An object is applied at its own path, as an apply patch, by our field manager."""
    await api.apply(manifest("one"))
    ((method, path, kind, body),) = seen
    assert (method, kind, body) == ("PATCH", "application/apply-patch+yaml", manifest("one"))
    assert path == "/api/v1/namespaces/default/configmaps/one?fieldManager=supportfleet-local&force=true"


async def test_what_is_not_there_is_none(api: Api) -> None:
    """Asking for what is not there is an answer, and deleting it is done; applying to it is an error."""
    assert await api.get("/missing") is None
    await api.delete("/missing")
    with pytest.raises(KubernetesError, match="404 not found"):
        await api.apply(manifest("missing"))


@pytest.mark.parametrize(("path", "said"), [("/forbidden", "403 no right to it"), ("/broken", "502 <html>bad gateway")])
async def test_a_refusal_says_why(api: Api, path: str, said: str) -> None:
    """A refused request carries the server's own words, also where they are no Status."""
    with pytest.raises(KubernetesError, match=said):
        await api.get(path)


async def test_nobody_there_is_an_error_with_a_remedy() -> None:
    """A server that does not answer is one error that says where to look, and is not ready."""
    async with aiohttp.ClientSession() as session:
        api = Api(session, "http://127.0.0.1:1")
        assert not await api.ready()
        with pytest.raises(KubernetesError, match="does not answer") as caught:
            await api.get("/version")
    assert "local status" in caught.value.remedy


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kube-dns", "namespace": "kube-system"},
    "spec": {"clusterIP": "10.108.0.10"},
}


class Allocator:
    """An API server that refuses an address as long as somebody holds it, as a real one does."""

    def __init__(self, holder: str, refusals: int) -> None:
        self.holder = holder
        self.refusals = refusals
        self.tries = 0

    async def apply(self, request: web.Request) -> web.Response:
        self.tries += 1
        if self.tries > self.refusals:
            return web.json_response(await request.json())
        why = (
            'Service "kube-dns" is invalid: spec.clusterIPs: Invalid value: ["10.108.0.10"]: failed to allocate IP '
            "10.108.0.10: provided IP is already allocated"
        )
        return web.json_response({"kind": "Status", "message": why}, status=422)

    async def address(self, request: web.Request) -> web.Response:
        assert request.match_info["ip"] == "10.108.0.10"
        if not self.holder:
            return web.json_response({"kind": "Status", "message": "not found"}, status=404)
        parent = {"resource": "services", "namespace": "kube-system", "name": self.holder}
        return web.json_response({"kind": "IPAddress", "spec": {"parentRef": parent}})

    async def serve_to(self, use: Callable[[Api], Awaitable[None]]) -> None:
        app = web.Application()
        app.router.add_patch("/api/v1/namespaces/kube-system/services/kube-dns", self.apply)
        app.router.add_get("/apis/networking.k8s.io/v1/ipaddresses/{ip}", self.address)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            await use(Api(session, str(server.make_url("")).rstrip("/")))


@pytest.mark.parametrize("holder", ["kube-dns", ""])
async def test_an_interrupted_request_gives_the_address_back(holder: str) -> None:
    """An address that an interrupted try to make the same Service holds, or has just let go, is waited for."""
    allocator = Allocator(holder, refusals=2)
    await allocator.serve_to(lambda api: api.apply(SERVICE))
    assert allocator.tries == 3


async def test_an_address_that_another_has_is_not_waited_for() -> None:
    """An address that another Service has is an error at once."""
    allocator = Allocator("intruder", refusals=1_000)
    with pytest.raises(KubernetesError, match="already allocated"):
        await allocator.serve_to(lambda api: api.apply(SERVICE))
    assert allocator.tries == 1


async def test_an_address_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that stays held is an error once the API server had the time to find it out."""
    monkeypatch.setattr("supportfleet.local.embedded.api.LEAK_SECONDS", 0.6)
    allocator = Allocator("kube-dns", refusals=1_000)
    with pytest.raises(KubernetesError, match="already allocated"):
        await allocator.serve_to(lambda api: api.apply(SERVICE))
    assert 2 <= allocator.tries <= 5
