"""What requests say beside their bodies: ids in paths, what is in queries, and which answer they want."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from aiohttp import web

from supportfleet_runtime.errors import NotFoundError
from supportfleet_runtime.gateway.authentication import customer_of
from supportfleet_runtime.gateway.endpoints import EVENTS, ID_PATTERN, JSON, Parameter
from supportfleet_runtime.gateway.problems import FieldError, HttpProblemError
from supportfleet_runtime.gateway.schema import CUSTOMER_PATTERN, MAX_CUSTOMER_ID, is_customer_id

DEFAULT_TURNS: Final = 100
MAX_TURNS: Final = 500
ID: Final = re.compile(ID_PATTERN)
CUSTOMER: Final = Parameter(
    "customer_id",
    "query",
    "Whose it must be; another customer's is not found.",
    {"type": "string", "minLength": 1, "maxLength": MAX_CUSTOMER_ID, "pattern": CUSTOMER_PATTERN},
)
TURNS: Final = Parameter(
    "turns",
    "query",
    "How many of the latest turns are told.",
    {"type": "integer", "minimum": 1, "maximum": MAX_TURNS, "default": DEFAULT_TURNS},
)


def path_id(request: web.Request, name: str) -> str:
    """An id in the path. One that was never given out names nothing."""
    given = request.match_info[name]
    if not ID.fullmatch(given):
        raise NotFoundError("no such thing: this is no id that was ever given out")
    return given


def query_customer(request: web.Request) -> str | None:
    """The customer whose it must be. One that no message could come from owns nothing."""
    given = request.query.get("customer_id")
    if given is not None and not is_customer_id(given):
        raise NotFoundError("no such customer")
    return customer_of(request, given)


def wants_events(request: web.Request) -> bool:
    """Whether the answer is to be streamed: ``Accept`` names events, and not JSON."""
    accepted = request.headers.get("Accept", "").lower()
    return EVENTS in accepted and JSON not in accepted


def query_turns(request: web.Request) -> int:
    """How many turns are asked for."""
    given = request.query.get("turns", str(DEFAULT_TURNS))
    if given.isascii() and given.isdigit() and 1 <= len(given) <= 4 and 1 <= int(given) <= MAX_TURNS:  # noqa: PLR2004
        return int(given)
    errors = [FieldError("?turns", f"a whole number from 1 to {MAX_TURNS}")]
    raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-query", "the query is not as documented", errors)
