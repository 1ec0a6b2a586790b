"""Server-sent events of a conversation: replies as they are stored, and how far its tasks are.

A conversation is watched for as long as the client likes, or from a message that was just sent up to its reply.

An event's id is the set of turns whose replies were sent (see ``conversations.turn_set``), so a stream that breaks off
is resumed by any pod, from what is stored: no reply is missed and none is sent twice. Events without an id (``task``)
tell a state; after a reconnection the state is told anew.

What a language model is saying in this process is told while it comes, by events without an id too (``delta``, and
``reset`` where what was said is void): what the deltas since the last ``reset`` say is how the reply begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.conversations.drafts import Drafts, Heard, News
from supportfleet_runtime.conversations.records import Incoming, Reply
from supportfleet_runtime.conversations.turn_set import TurnSet, parse_turn_set
from supportfleet_runtime.conversations.updates import OpenTask, StoredReply, Updates
from supportfleet_runtime.conversations.watching import Bell, Watching
from supportfleet_runtime.errors import StorageError
from supportfleet_runtime.gateway.endpoints import EVENTS, Answer, Endpoint, Parameter, identifier
from supportfleet_runtime.gateway.problems import FieldError, HttpProblemError, unavailable
from supportfleet_runtime.gateway.queries import CUSTOMER, path_id, query_customer
from supportfleet_runtime.gateway.schema import accepted_json, reply_json

log = structlog.get_logger()

HEARTBEAT: Final = 15.0
LONGEST: Final = 3600.0
"""After that the client resumes: so no connection, and no proof of who it is, lasts for ever."""
WRITE_SECONDS: Final = 30.0
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
PAGE: Final = 100
AFTER: Final = Parameter(
    "Last-Event-ID",
    "header",
    "The id of the last event that was received; `0` for all replies. Without it: what comes from now on.",
    {"type": "string", "pattern": "^(0|[1-9][0-9]{0,8})$"},
)


@dataclass(frozen=True)
class StreamLimits:
    """How many streams there may be at once, in this process."""

    total: int
    per_customer: int


@dataclass(frozen=True)
class Watched:
    """A conversation, from a position on; with a ``message`` up to its reply."""

    conversation_id: str
    seen: TurnSet
    message: Incoming | None = None

    def as_json(self) -> dict[str, str]:
        """What the first event tells."""
        return accepted_json(self.message) if self.message else {"conversation_id": self.conversation_id}

    def ends_with(self, reply: StoredReply) -> bool:
        """Whether there is no more to be told after this."""
        return self.message is not None and reply.task_id == self.message.task_id


@dataclass
class EventStreams:
    """The endpoint of events."""

    updates: Updates
    watching: Watching
    drafts: Drafts
    limits: StreamLimits
    heartbeat: float = HEARTBEAT
    longest: float = LONGEST
    _open: Counter[str] = field(default_factory=Counter)

    def endpoints(self) -> list[Endpoint]:
        """The table of what is served here."""
        return [
            Endpoint(
                "GET",
                "/v1/conversations/{conversation_id}/events",
                self.get_events,
                "streamEvents",
                "Stream a conversation's replies and its tasks' states as they come.",
                {200: Answer("Server-sent events: `ready`, `task`, `delta`, `reset`, `reply`.", media_type=EVENTS)},
                problems={
                    404: "It does not exist, or is another customer's.",
                    422: "`Last-Event-ID` is no event's id.",
                    429: "The customer has as many streams as allowed.",
                },
                parameters=(identifier("conversation_id", "conversation"), CUSTOMER, AFTER),
            )
        ]

    async def get_events(self, request: web.Request) -> web.StreamResponse:
        """Stream until the client leaves, the process stops, or ``longest``."""
        conversation_id = path_id(request, "conversation_id")
        customer_id, seen = await self.updates.position(conversation_id, query_customer(request))
        seen = _after(request) or seen
        with self.place(customer_id):
            response, _ = await self._stream(request, Watched(conversation_id, seen), "ready")
        return response

    async def answer(
        self, request: web.Request, message: Incoming, headers: Mapping[str, str]
    ) -> tuple[web.StreamResponse, Reply | None]:
        """Stream what becomes of a message that was taken in, up to its reply; that too, if it came."""
        seen = await self.updates.before(message.conversation_id, message.task_id)
        return await self._stream(request, Watched(message.conversation_id, seen, message), "accepted", headers)

    async def _stream(
        self, request: web.Request, watched: Watched, first: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> tuple[web.StreamResponse, Reply | None]:
        own = {"Content-Type": EVENTS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response, reply = web.StreamResponse(headers={**own, **headers}), None
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client left, or doesn't read
            await response.prepare(request)
            if request.method != "HEAD":
                await _send(response, first, watched.as_json(), watched.seen)
                reply = await self._follow(request, response, watched)
        return response, reply

    async def _follow(self, request: web.Request, response: web.StreamResponse, watched: Watched) -> Reply | None:
        conversation_id = watched.conversation_id
        telling = _Telling(response, conversation_id, watched.seen)
        ends_at = time.monotonic() + self.longest
        with self.watching.watching(conversation_id) as bell, self.drafts.listening(conversation_id):
            while not self._is_over(request) and time.monotonic() < ends_at:
                bell.clear()
                try:
                    replies, unfinished = await self.updates.since(conversation_id, telling.seen, PAGE)
                except StorageError as error:
                    log.warning("stream_ended", conversation_id=conversation_id, reason=str(error))
                    return None
                await telling.tell_tasks(unfinished)
                await telling.tell_drafts(self.drafts.of(conversation_id))
                for reply in replies:
                    await telling.tell_reply(reply)
                    if watched.ends_with(reply):
                        return reply.reply
                if not replies:
                    telling.tasks = {task.task_id: task for task in unfinished}
                    await self._rest(telling, bell)
        return None

    async def _rest(self, telling: _Telling, bell: Bell) -> None:
        """Wait until something may be stored, and tell drafts meanwhile.

        If nothing happens, keep the connection alive and notice when it isn't.
        """
        while not self.watching.closed and not bell.is_stored:
            bell.clear()
            await telling.tell_drafts(self.drafts.of(telling.conversation_id))
            try:
                async with asyncio.timeout(self.heartbeat):
                    await bell.wait()
            except TimeoutError:
                await _write(telling.response, b":\n\n")
                return

    def _is_over(self, request: web.Request) -> bool:
        return self.watching.closed or request.transport is None or request.transport.is_closing()

    @contextlib.contextmanager
    def place(self, customer_id: str) -> Iterator[None]:
        """One of the streams that there may be."""
        if self.watching.closed or self._open.total() >= self.limits.total:
            raise unavailable("there are as many streams as this pod takes")
        if self._open[customer_id] >= self.limits.per_customer:
            detail = f"a customer may have {self.limits.per_customer} streams at once: close one"
            headers = {"Retry-After": "5"}
            raise HttpProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too-many-streams", detail, headers=headers)
        self._open[customer_id] += 1
        try:
            yield
        finally:
            self._open[customer_id] -= 1
            if not self._open[customer_id]:
                del self._open[customer_id]


@dataclass
class _Telling:
    """A stream, and what was told by it: the replies ``seen``, states of tasks, drafts."""

    response: web.StreamResponse
    conversation_id: str
    seen: TurnSet
    tasks: dict[str, OpenTask] = field(default_factory=dict)
    heard: Heard = field(default_factory=Heard)

    async def tell_tasks(self, unfinished: Sequence[OpenTask]) -> None:
        """States that are new."""
        for task in unfinished:
            if self.tasks.get(task.task_id) != task:
                self.tasks[task.task_id] = task
                await _send(self.response, "task", _task_json(self.conversation_id, task))

    async def tell_drafts(self, drafts: Collection[Draft]) -> None:
        """How drafts go on."""
        for news in self.heard.news(drafts, self.seen):
            await self._tell(news)

    async def tell_reply(self, stored: StoredReply) -> None:
        """A reply."""
        for news in self.heard.ended(stored.task_id, stored.turn, stored.reply.text):
            await self._tell(news)
        self.seen = self.seen.with_turn(stored.turn)
        await _send(self.response, "reply", _reply_json(self.conversation_id, stored), self.seen)

    async def _tell(self, news: News) -> None:
        body = {"task_id": news.task_id, "conversation_id": self.conversation_id, "turn": news.turn}
        if news.text is None:
            await _send(self.response, "reset", body)
        else:
            await _send(self.response, "delta", {**body, "text": news.text})


def _task_json(conversation_id: str, task: OpenTask) -> dict[str, Any]:
    body = {"task_id": task.task_id, "conversation_id": conversation_id, "turn": task.turn, "status": task.state}
    return body if task.progress is None else {**body, "progress": task.progress}


def _reply_json(conversation_id: str, stored: StoredReply) -> dict[str, Any]:
    return {
        "task_id": stored.task_id,
        "conversation_id": conversation_id,
        "message_id": stored.message_id,
        "turn": stored.turn,
        "created_at": stored.created_at,
        **reply_json(stored.reply),
    }


async def _send(response: web.StreamResponse, event: str, data: dict[str, Any], seen: TurnSet | None = None) -> None:
    """Send an event. JSON has no line breaks of its own, so it is one line of data."""
    id_ = b"" if seen is None else f"id: {seen}\n".encode()
    await _write(response, id_ + f"event: {event}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n")


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)


def _after(request: web.Request) -> TurnSet | None:
    given = request.headers.get("Last-Event-ID")
    if given is None:
        return None
    try:
        return parse_turn_set(given)
    except ValueError as error:
        errors = [FieldError("Last-Event-ID", "the id of an event of this conversation, or 0")]
        detail = "the header is not as documented"
        raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-header", detail, errors) from error
