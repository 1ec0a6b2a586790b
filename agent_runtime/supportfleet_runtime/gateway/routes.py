"""The endpoints. A message is accepted once it is stored, and answered within the time limit or as a task."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.mirrored import Mirrored
from supportfleet_runtime.conversations.records import Deferred, Incoming, Outcome, Reply
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.errors import NotFoundError, StorageError
from supportfleet_runtime.gateway.measuring import INTENT
from supportfleet_runtime.gateway.mirroring import is_mirrored
from supportfleet_runtime.gateway.problems import FieldError, HttpProblemError, unavailable
from supportfleet_runtime.gateway.schema import (
    MessageRequest,
    accepted_json,
    answer_json,
    conversation_json,
    is_customer_id,
    read_message,
    task_json,
)
from supportfleet_runtime.health import Check, check
from supportfleet_runtime.observability.metrics import Metrics
from supportfleet_runtime.observability.tracing import span, traceparent
from supportfleet_runtime.storage.ids import new_id

log = structlog.get_logger()

DEFAULT_TURNS: Final = 100
MAX_TURNS: Final = 500
ID: Final = re.compile(r"[a-z]{1,8}_[0-9A-Z]{26}")


@dataclass(frozen=True)
class Gateway:
    """What the endpoints use. ``patience`` is how long a message may take to be stored, ``limit`` to be answered."""

    intake: Intake
    mirrored: Mirrored
    waiters: Waiters
    views: Views
    metrics: Metrics
    depth: Callable[[], Awaitable[int]]
    checks: Mapping[str, Check]
    is_open: Callable[[], bool]
    """Whether messages can be taken: not before the schema is there."""
    limit: float
    patience: float
    now: Callable[[], datetime]

    def add_routes(self, app: web.Application) -> None:
        """Serve all endpoints with ``app``."""
        app.router.add_post("/v1/messages", self.post_message)
        app.router.add_get("/v1/tasks/{task_id}", self.get_task)
        app.router.add_get("/v1/conversations/{conversation_id}", self.get_conversation)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.get_metrics)

    async def post_message(self, request: web.Request) -> web.Response:
        """Take a message in, and wait for its answer."""
        started = time.perf_counter()
        if not self.is_open():
            raise unavailable("the agent is starting")
        incoming = self._incoming(await read_message(request))
        if is_mirrored(request.headers.get("Host", "")):
            return await self._answer_mirrored(request, incoming, started)
        async with self.waiters.waiting(incoming.task_id) as future:
            await self._accept(incoming)
            with span("reply"):
                try:
                    async with asyncio.timeout(max(0.0, self.limit - (time.perf_counter() - started))):
                        outcome: Outcome | None = await future
                except TimeoutError:
                    outcome = None
        latency = time.perf_counter() - started
        self.metrics.response_latency.observe(latency)
        ids = {"task_id": incoming.task_id, "conversation_id": incoming.conversation_id}
        if isinstance(outcome, Reply):
            return _answered(request, incoming, outcome, latency)
        if isinstance(outcome, Deferred):
            request[INTENT] = outcome.intent
        log.info("message_queued", **ids)
        headers = {"Location": f"/v1/tasks/{incoming.task_id}", "Retry-After": "1"}
        return _json(accepted_json(incoming), HTTPStatus.ACCEPTED, headers)

    async def _answer_mirrored(self, request: web.Request, incoming: Incoming, started: float) -> web.Response:
        """Answer a copy at once: nothing of it is stored, so it is never left to the queue."""
        try:
            async with asyncio.timeout(max(0.0, self.limit - (time.perf_counter() - started))):
                reply = await self.mirrored.answer(incoming)
        except TimeoutError as error:
            raise unavailable("the copy of a message was not answered in time") from error
        latency = time.perf_counter() - started
        self.metrics.response_latency.observe(latency)
        return _answered(request, incoming, reply, latency, mirrored=True)

    async def get_task(self, request: web.Request) -> web.Response:
        """How far a message is, and its answer once there is one."""
        task = await self.views.task(_id(request, "task_id"), _customer(request))
        return _json(task_json(task))

    async def get_conversation(self, request: web.Request) -> web.Response:
        """A conversation's latest messages."""
        conversation = await self.views.conversation(
            _id(request, "conversation_id"), _customer(request), _turns(request)
        )
        return _json(conversation_json(conversation))

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether the process lives: if it answers, it does."""
        return _json({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether it should be sent messages, and why not."""
        readiness = await check(self.checks)
        return _json(readiness.as_json(), HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Figures for Prometheus; a depth that can't be known is NaN."""
        try:
            async with asyncio.timeout(self.patience):
                self.metrics.queue_depth.set(await self.depth())
        except (StorageError, TimeoutError):
            self.metrics.queue_depth.set(float("nan"))
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.metrics.render(), headers=headers)

    async def _accept(self, incoming: Incoming) -> None:
        try:
            with span("accept"):
                async with asyncio.timeout(self.patience):
                    await self.intake.accept(incoming)
        except TimeoutError as error:
            raise unavailable("the database is too slow to take the message") from error

    def _incoming(self, message: MessageRequest) -> Incoming:
        now = self.now()
        return Incoming(
            task_id=new_id("task", now),
            message_id=new_id("msg", now),
            customer_id=message.customer_id,
            conversation_id=message.conversation_id or new_id("conv", now),
            is_new=message.conversation_id is None,
            text=message.text,
            received_at=now,
            trace=traceparent(),
        )


def _answered(
    request: web.Request, incoming: Incoming, reply: Reply, latency: float, *, mirrored: bool = False
) -> web.Response:
    request[INTENT] = reply.intent
    milliseconds = latency * 1000
    log.info(
        "message_answered",
        task_id=incoming.task_id,
        conversation_id=incoming.conversation_id,
        intent=reply.intent,
        source=reply.source,
        fallback_level=reply.fallback_level,
        latency_ms=round(milliseconds, 1),
        **({"mirrored": True} if mirrored else {}),
    )
    return _json(answer_json(incoming, reply, milliseconds))


def _id(request: web.Request, name: str) -> str:
    given = request.match_info[name]
    if not ID.fullmatch(given):
        raise NotFoundError("no such thing: this is no id that was ever given out")
    return given


def _customer(request: web.Request) -> str | None:
    """The customer whose it must be. One that no message could come from owns nothing."""
    given = request.query.get("customer_id")
    if given is not None and not is_customer_id(given):
        raise NotFoundError("no such customer")
    return given


def _turns(request: web.Request) -> int:
    given = request.query.get("turns", str(DEFAULT_TURNS))
    if given.isascii() and given.isdigit() and 1 <= len(given) <= 4 and 1 <= int(given) <= MAX_TURNS:  # noqa: PLR2004
        return int(given)
    errors = [FieldError("?turns", f"a whole number from 1 to {MAX_TURNS}")]
    raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-query", "the query is not as documented", errors)


def _json(
    body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status.value, content_type="application/json", headers=headers)
