"""Reading pods' figures, from servers that behave and from some that do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from supportfleet_operator.cluster import scraper
from supportfleet_operator.cluster.scraper import PodScraper, Target, scraping

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Target]]


@pytest.fixture
def serve(served: Callable[[str, str, Handler], Awaitable[int]]) -> Serve:
    """Serves /metrics with a handler; gives where."""

    async def start(handler: Handler) -> Target:
        return Target("127.0.0.1", await served("GET", "/metrics", handler))

    return start


def saying(text: str, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return answer


async def test_every_pod_is_asked(serve: Serve) -> None:
    """Each pod's figures come back under its name."""
    targets = {name: await serve(saying(f"up_{name} 1\n")) for name in ("a", "b", "c")}
    async with scraping() as session:
        found = await PodScraper(session).scrape(targets)
    assert found == {name: f"up_{name} 1\n" for name in targets}


async def test_pods_that_give_no_figures_are_left_out(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, failing, silent, redirecting, empty or endless ones cost no other pod its figures."""
    monkeypatch.setattr(scraper, "MOST_BYTES", 1000)
    monkeypatch.setattr(scraper, "TIMEOUT", scraper.aiohttp.ClientTimeout(total=2))

    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response(text="late 1\n")

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/")

    targets = {
        "good": await serve(saying("good 1\n")),
        "refused": Target("127.0.0.1", 1),
        "failing": await serve(saying("x 1\n", 500)),
        "silent": await serve(silent),
        "redirecting": await serve(elsewhere),
        "empty": await serve(saying("")),
        "endless": await serve(saying("x" * 2000)),
    }
    async with scraping() as session:
        found = await PodScraper(session).scrape(targets)
    assert found == {"good": "good 1\n"}


async def test_only_so_many_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of pods is read a few at a time."""
    monkeypatch.setattr(scraper, "AT_ONCE", 3)
    busy, most = 0, 0

    async def count(_: web.Request) -> web.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.01)
        busy -= 1
        return web.Response(text="x 1\n")

    target = await serve(count)
    async with scraping() as session:
        found = await PodScraper(session).scrape({f"pod-{number}": target for number in range(20)})
    assert len(found) == 20
    assert most <= 3
