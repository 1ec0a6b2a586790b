"""Bodies: what callers may send, checked to the letter, and what they are answered."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import orjson
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from supportfleet_runtime.conversations.records import (
    ConversationRecord,
    Incoming,
    MessageRecord,
    Reply,
    TaskRecord,
)
from supportfleet_runtime.gateway.callback_requests import CallbackRequest
from supportfleet_runtime.gateway.endpoints import JSON
from supportfleet_runtime.gateway.problems import HttpProblemError, field_errors

MAX_BODY: Final = 64 * 1024
MAX_CUSTOMER_ID: Final = 128
MAX_TEXT: Final = 8_000
BODY_SECONDS: Final = 15.0

CUSTOMER_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
"""``_printable``, for the API's description."""
TEXT_PATTERN: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""``_storable``, likewise."""


def _printable(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):  # noqa: PLR2004 - ASCII's controls
        raise ValueError("control characters are not allowed")
    return value


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("the NUL character is not allowed")
    if not value.strip():
        raise ValueError("it is blank")
    return value


def is_customer_id(value: str) -> bool:
    """Whether a customer could have this id: what ``MessageRequest`` takes, without half characters."""
    return 0 < len(value) <= MAX_CUSTOMER_ID and all(
        ord(c) >= 32 and ord(c) != 127 and not 0xD800 <= ord(c) <= 0xDFFF  # noqa: PLR2004 - ASCII's controls
        for c in value
    )


class PlainMessageRequest(BaseModel):
    """A customer's message."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    customer_id: Annotated[
        str,
        Field(min_length=1, max_length=MAX_CUSTOMER_ID, json_schema_extra={"pattern": CUSTOMER_PATTERN}),
        AfterValidator(_printable),
    ]
    conversation_id: (
        Annotated[
            str,
            Field(min_length=1, max_length=64, json_schema_extra={"pattern": CUSTOMER_PATTERN}),
            AfterValidator(_printable),
        ]
        | None
    ) = None
    text: Annotated[
        str,
        Field(min_length=1, max_length=MAX_TEXT, json_schema_extra={"pattern": TEXT_PATTERN}),
        AfterValidator(_storable),
    ]
    priority: Literal["normal", "high"] = "normal"


class MessageRequest(PlainMessageRequest):
    """A customer's message, and whom to tell when its task has ended."""

    callback: CallbackRequest | None = None


async def read_message(request: web.Request) -> MessageRequest:
    """The body of ``POST /v1/messages``, or a problem that says what is wrong with it."""
    if request.content_type != JSON or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        detail = f"send {JSON} in UTF-8"
        raise HttpProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        detail = "send the body as it is: compressed ones are not unpacked"
        headers = {"Accept-Encoding": "identity"}
        raise HttpProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "compressed-body", detail, headers=headers)
    body = await _read(request)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is no JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise HttpProblemError(HTTPStatus.BAD_REQUEST, "malformed-json", detail) from error
    try:
        return MessageRequest.model_validate(value)
    except ValidationError as error:
        detail, errors = "the body is not a message as documented", field_errors(error)
        raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-message", detail, errors) from error


async def _read(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        detail = f"the body was not sent within {BODY_SECONDS:g} s"
        raise HttpProblemError(HTTPStatus.REQUEST_TIMEOUT, "request-timeout", detail) from error
    except web.RequestPayloadError as error:
        detail = "the body's transfer encoding is broken"
        raise HttpProblemError(HTTPStatus.BAD_REQUEST, "malformed-body", detail) from error


def answer_json(incoming: Incoming, reply: Reply, latency_ms: float) -> dict[str, Any]:
    """The response to a message that was answered in time."""
    return {**_ids(incoming), **reply_json(reply), "latency_ms": round(latency_ms, 2)}


def accepted_json(incoming: Incoming) -> dict[str, str]:
    """The response to a message whose answer takes longer."""
    return {**_ids(incoming), "status": "queued"}


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply's own members."""
    return {
        "reply": reply.text,
        "intent": reply.intent,
        "confidence": round(reply.confidence, 4),
        "source": reply.source,
        "model": reply.model,
        "tools_enabled": reply.tools_enabled,
        "fallback_level": reply.fallback_level,
        "escalated": reply.escalated,
    }


def task_json(task: TaskRecord) -> dict[str, Any]:
    """A task."""
    return {
        "task_id": task.task_id,
        "conversation_id": task.conversation_id,
        "message_id": task.message_id,
        "status": task.state,
        "created_at": task.created_at,
        "finished_at": task.finished_at,
        **(reply_json(task.reply) if task.reply else {}),
        **({"progress": task.long.progress, "result": task.long.result} if task.long else {}),
        **({"callback": asdict(task.callback)} if task.callback else {}),
    }


def conversation_json(conversation: ConversationRecord) -> dict[str, Any]:
    """A conversation and its messages."""
    return {
        "conversation_id": conversation.conversation_id,
        "customer_id": conversation.customer_id,
        "status": "escalated" if conversation.escalated else "open",
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
        "has_earlier": conversation.has_earlier,
        "messages": [_message_json(message) for message in conversation.messages],
    }


def _message_json(message: MessageRecord) -> dict[str, Any]:
    shown = {
        "message_id": message.message_id,
        "turn": message.turn,
        "role": message.role,
        "text": message.text,
        "created_at": message.created_at,
    }
    if message.reply:
        facts = reply_json(message.reply)
        shown |= {name: facts[name] for name in ("intent", "confidence", "source", "model", "fallback_level")}
    return shown


def _ids(incoming: Incoming) -> dict[str, str]:
    return {
        "task_id": incoming.task_id,
        "conversation_id": incoming.conversation_id,
        "message_id": incoming.message_id,
    }
