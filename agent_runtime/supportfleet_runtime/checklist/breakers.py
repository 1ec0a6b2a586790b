"""Breakers: one of the agent's own kind opens, lets a single probe through, and closes; none of the agent's is open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from supportfleet_runtime.agent.breaker import FAILURES, PAUSE_SECONDS, CircuitBreaker, State
from supportfleet_runtime.checklist.outcome import Outcome, failed, judged
from supportfleet_runtime.checklist.subject import Subject

CALL_SECONDS = 5.0


async def check(subject: Subject) -> Outcome:
    """Drive a breaker against a server that fails, then look at the running agent's, where there is one."""
    async with _failing_server() as server:
        if wrong := await _drive(server):
            return failed(wrong)
    driven = (
        f"opened after {FAILURES} failures, let one probe through after {PAUSE_SECONDS:g} s, closed when it succeeded"
    )
    if subject.url is None:
        return judged([], f"{driven}; no running agent was looked at (--url)")
    states = read_states((await subject.ask("GET", "/metrics")).text)
    opened = [f"the agent's breaker of {name} is open" for name, state in states.items() if state is State.OPEN]
    return judged(opened, f"{driven}; the running agent's {len(states)} are not open")


def read_states(metrics: str) -> dict[str, State]:
    """The breakers that a page of metrics tells of. Pure."""
    families = [one for one in text_string_to_metric_families(metrics) if one.name == "agent_breaker_state"]
    return {sample.labels["dependency"]: State(int(sample.value)) for one in families for sample in one.samples}


@dataclass
class _Server:
    """A dependency that fails until it is mended."""

    url: str = ""
    failing: bool = True
    calls: int = 0
    time: float = field(default=0.0)

    async def handle(self, _request: web.Request) -> web.Response:
        self.calls += 1
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR if self.failing else HTTPStatus.OK)


@contextlib.asynccontextmanager
async def _failing_server() -> AsyncIterator[_Server]:
    server = _Server()
    app = web.Application()
    app.router.add_get("/", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield server
    finally:
        await runner.cleanup()


async def _drive(server: _Server) -> str | None:
    """Take a breaker through all its states; what it did wrong."""
    breaker = CircuitBreaker(lambda: server.time)

    def state() -> State:
        return breaker.state

    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for _ in range(FAILURES):
            await _call(breaker, session, server)
        if state() is not State.OPEN:
            return f"it did not open after {FAILURES} failures"
        await _call(breaker, session, server)
        if server.calls != FAILURES:
            return "it let a call through while it was open"
        server.time += PAUSE_SECONDS
        probe = breaker.admit()
        if probe is None or state() is not State.HALF_OPEN or breaker.admit() is not None:
            return f"it did not let exactly one probe through {PAUSE_SECONDS:g} s later"
        probe.failed()
        if state() is not State.OPEN:
            return "it did not open again when the probe failed"
        server.time += PAUSE_SECONDS
        server.failing = False
        await _call(breaker, session, server)
        return None if state() is State.CLOSED else "it did not close when the probe succeeded"


async def _call(breaker: CircuitBreaker, session: aiohttp.ClientSession, server: _Server) -> None:
    permit = breaker.admit()
    if permit is None:
        return
    async with session.get(server.url) as response:
        if response.status == HTTPStatus.OK:
            permit.succeeded()
        else:
            permit.failed()
