"""The endpoints. A message is accepted once it is stored, and answered within the time limit or as a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import structlog
from aiohttp import web

from supportfleet_runtime.callbacks.settings import CallbackSettings
from supportfleet_runtime.conversations.intake import Intake
from supportfleet_runtime.conversations.mirrored import Mirrored
from supportfleet_runtime.conversations.records import Deferred, Incoming, Once, Outcome, Reply
from supportfleet_runtime.conversations.views import Views
from supportfleet_runtime.conversations.waiters import Waiters
from supportfleet_runtime.errors import KeyReusedError, StorageError
from supportfleet_runtime.gateway import answers
from supportfleet_runtime.gateway.authentication import check_speaks_for
from supportfleet_runtime.gateway.callback_requests import read_callback
from supportfleet_runtime.gateway.endpoints import Access, Answer, Endpoint, identifier, json_response
from supportfleet_runtime.gateway.events import EventStreams
from supportfleet_runtime.gateway.idempotency import PARAMETER as IDEMPOTENCY_KEY
from supportfleet_runtime.gateway.idempotency import REPLAYED, read_once
from supportfleet_runtime.gateway.limiting import Limits
from supportfleet_runtime.gateway.measuring import INTENT, TOOK
from supportfleet_runtime.gateway.mirroring import is_mirrored
from supportfleet_runtime.gateway.problems import HttpProblemError, unavailable
from supportfleet_runtime.gateway.queries import CUSTOMER, TURNS, path_id, query_customer, query_turns, wants_events
from supportfleet_runtime.gateway.request_ids import request_id
from supportfleet_runtime.gateway.schema import (
    MessageRequest,
    PlainMessageRequest,
    accepted_json,
    answer_json,
    conversation_json,
    read_message,
    task_json,
)
from supportfleet_runtime.health import Check, check
from supportfleet_runtime.observability.metrics import EXPOSITION, Metrics
from supportfleet_runtime.observability.tracing import span, traceparent
from supportfleet_runtime.storage.ids import new_id

log = structlog.get_logger()


@dataclass(frozen=True)
class Gateway:
    """What the endpoints use. ``patience`` is how long a message may take to be stored, ``limit`` to be answered."""

    limits: Limits
    intake: Intake
    mirrored: Mirrored | None
    """None where no messages are worked."""
    waiters: Waiters
    streams: EventStreams
    views: Views
    metrics: Metrics
    depth: Callable[[], Awaitable[int]]
    checks: Mapping[str, Check]
    is_open: Callable[[], bool]
    """Whether messages can be taken: not before the schema is there."""
    limit: float
    patience: float
    callbacks: CallbackSettings
    now: Callable[[], datetime]

    def endpoints(self) -> list[Endpoint]:
        """The table of what customers are served."""
        task, conversation = identifier("task_id", "task"), identifier("conversation_id", "conversation")
        return [
            Endpoint(
                "POST",
                "/v1/messages",
                self.post_message,
                "postMessage",
                "Send a customer's message, and wait for its answer.",
                {
                    200: Answer(
                        "The answer; events (`accepted`, `task`, `delta`, `reset`, `reply`) where they are asked for.",
                        answers.MessageAnswer,
                        streams=True,
                    ),
                    202: Answer(
                        "It is stored; the answer takes longer.",
                        answers.MessageAccepted,
                        headers={"Location": "The task.", "Retry-After": "Seconds until it is worth asking."},
                    ),
                },
                problems={
                    403: "The token is another customer's, or asks for a callback.",
                    404: "The conversation does not exist, or is another customer's.",
                    429: "The customer asked too often, or has as many streams as allowed; see `Retry-After`.",
                },
                parameters=(IDEMPOTENCY_KEY,),
                body=MessageRequest if self.callbacks.kinds else PlainMessageRequest,
            ),
            Endpoint(
                "GET",
                "/v1/tasks/{task_id}",
                self.get_task,
                "getTask",
                "Tell how far a message is, and its answer once there is one.",
                {200: Answer("The task.", answers.Task)},
                problems={404: "It does not exist, or is another customer's."},
                parameters=(task, CUSTOMER),
            ),
            Endpoint(
                "GET",
                "/v1/conversations/{conversation_id}",
                self.get_conversation,
                "getConversation",
                "Tell a conversation's latest messages.",
                {200: Answer("The conversation.", answers.Conversation)},
                problems={
                    404: "It does not exist, or is another customer's.",
                    422: "The query is not as documented.",
                },
                parameters=(conversation, CUSTOMER, TURNS),
            ),
        ]

    def probes(self) -> list[Endpoint]:
        """The table of what Kubernetes and Prometheus are told."""
        ready = answers.ReadinessReport
        return [
            Endpoint(
                "GET",
                "/healthz",
                self.healthz,
                "live",
                "Tell that the process lives.",
                {200: Answer("It does.", answers.Liveness)},
                access=Access.OPEN,
            ),
            Endpoint(
                "GET",
                "/readyz",
                self.readyz,
                "ready",
                "Tell whether messages should be sent here, and why not.",
                {200: Answer("They should.", ready), 503: Answer("They should not.", ready)},
                access=Access.OPEN,
            ),
            Endpoint(
                "GET",
                "/metrics",
                self.get_metrics,
                "metrics",
                "Tell Prometheus figures.",
                {200: Answer("Prometheus's text format.", media_type=EXPOSITION)},
                access=Access.OPEN,
            ),
        ]

    async def post_message(self, request: web.Request) -> web.StreamResponse:
        """Take a message in, and wait for its answer."""
        started = time.perf_counter()
        if not self.is_open():
            raise unavailable("the agent is starting")
        message = await read_message(request)
        check_speaks_for(request, message.customer_id)
        mirrored = is_mirrored(request.headers.get("Host", ""))
        await self.limits.charge(request, message.customer_id, mirrored=mirrored)
        incoming = self._incoming(request, message, None if mirrored else read_once(request, message))
        if mirrored:
            return await self._answer_mirrored(request, incoming, started)
        if wants_events(request):
            return await self._stream_answer(request, incoming, started)
        async with self.waiters.waiting(incoming.task_id) as future:
            accepted = await self._accept(incoming)
            outcome = await self._outcome(future, started) if accepted is incoming else None
        if accepted is not incoming:  # sent again: the first one's answer is this one's
            async with self.waiters.waiting(accepted.task_id) as future:
                self.waiters.hear([accepted.task_id])
                outcome = await self._outcome(future, started)
        response = self._respond(request, accepted, outcome, time.perf_counter() - started)
        if accepted is not incoming:
            response.headers[REPLAYED] = "true"
        return response

    async def _stream_answer(self, request: web.Request, incoming: Incoming, started: float) -> web.StreamResponse:
        """Take a message in, and stream what becomes of it up to its answer."""
        with self.streams.place(incoming.customer_id), self.streams.drafts.listening(incoming.conversation_id):
            accepted = await self._accept(incoming)
            replayed = {REPLAYED: "true"} if accepted is not incoming else {}
            try:
                response, reply = await self.streams.answer(request, accepted, replayed)
            except StorageError:  # it is stored: that it can't be watched must not have it sent again
                return self._respond(request, accepted, None, time.perf_counter() - started)
        latency = request[TOOK] = min(time.perf_counter() - started, self.limit)
        self.metrics.response_latency.observe(latency)
        if reply is not None:
            _note(request, accepted, reply, latency)
        return response

    async def _outcome(self, future: asyncio.Future[Outcome], started: float) -> Outcome | None:
        """What became of the task, or nothing yet when the time is over."""
        with span("reply"):
            try:
                async with asyncio.timeout(max(0.0, self.limit - (time.perf_counter() - started))):
                    return await future
            except TimeoutError:
                return None

    def _respond(
        self, request: web.Request, incoming: Incoming, outcome: Outcome | None, latency: float
    ) -> web.Response:
        """The answer, or where it will be found."""
        self.metrics.response_latency.observe(latency)
        if isinstance(outcome, Reply):
            return _answered(request, incoming, outcome, latency)
        if isinstance(outcome, Deferred):
            request[INTENT] = outcome.intent
        ids = {"task_id": incoming.task_id, "conversation_id": incoming.conversation_id}
        log.info("message_queued", **ids, request_id=request_id(request))
        headers = {"Location": f"/v1/tasks/{incoming.task_id}", "Retry-After": "1"}
        return json_response(accepted_json(incoming), HTTPStatus.ACCEPTED, headers)

    async def _answer_mirrored(self, request: web.Request, incoming: Incoming, started: float) -> web.Response:
        """Answer a copy at once: nothing of it is stored, so it is never left to the queue."""
        if self.mirrored is None:
            raise unavailable("copies of messages are answered where messages are worked: this is a gateway alone")
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
        customer = query_customer(request)
        await self.limits.charge(request, customer)
        task = await self.views.task(path_id(request, "task_id"), customer)
        return json_response(task_json(task))

    async def get_conversation(self, request: web.Request) -> web.Response:
        """A conversation's latest messages."""
        customer, turns = query_customer(request), query_turns(request)
        await self.limits.charge(request, customer)
        conversation = await self.views.conversation(path_id(request, "conversation_id"), customer, turns)
        return json_response(conversation_json(conversation))

    async def healthz(self, _request: web.Request) -> web.Response:
        """Whether the process lives: if it answers, it does."""
        return json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """Whether it should be sent messages, and why not."""
        readiness = await check(self.checks)
        return json_response(readiness.as_json(), HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Figures for Prometheus; a depth that can't be known is NaN."""
        await self.metrics.read_depth(self.depth, self.patience)
        return web.Response(body=self.metrics.render(), headers={"Content-Type": EXPOSITION})

    async def _accept(self, incoming: Incoming) -> Incoming:
        try:
            with span("accept"):
                async with asyncio.timeout(self.patience):
                    return await self.intake.accept(incoming)
        except KeyReusedError as error:
            raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", str(error)) from error
        except TimeoutError as error:
            raise unavailable("the database is too slow to take the message") from error

    def _incoming(self, request: web.Request, message: MessageRequest, once: Once | None) -> Incoming:
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
            callback=read_callback(request, message.callback, self.callbacks, now),
            urgent=message.priority == "high",
            once=once,
        )


def _answered(
    request: web.Request, incoming: Incoming, reply: Reply, latency: float, *, mirrored: bool = False
) -> web.Response:
    _note(request, incoming, reply, latency, mirrored=mirrored)
    return json_response(answer_json(incoming, reply, latency * 1000))


def _note(request: web.Request, incoming: Incoming, reply: Reply, latency: float, *, mirrored: bool = False) -> None:
    """Log the answer, and have it counted with its intent."""
    request[INTENT] = reply.intent
    log.info(
        "message_answered",
        task_id=incoming.task_id,
        conversation_id=incoming.conversation_id,
        request_id=request_id(request),
        intent=reply.intent,
        source=reply.source,
        fallback_level=reply.fallback_level,
        latency_ms=round(latency * 1000, 1),
        **({"mirrored": True} if mirrored else {}),
    )
