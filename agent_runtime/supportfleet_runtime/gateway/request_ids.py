"""``X-Request-Id``: what joins a request with its log lines and its problem document.

A caller may send one of its own (letters, digits and ``._-``, up to 128), which is then kept; else it gets a fresh one.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from supportfleet_runtime.entropy import random_bytes

HEADER: Final = "X-Request-Id"
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ID: Final = web.RequestKey("request_id", str)


def request_id(request: web.BaseRequest) -> str:
    """The request's id."""
    known = request.get(_ID)
    if known is None:
        given = request.headers.get(HEADER, "")
        known = request[_ID] = given if _ACCEPTED.fullmatch(given) else random_bytes(12).hex()
    return known


async def send_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Tell it with every response (a signal handler: responses that stream have sent their head when they return)."""
    response.headers[HEADER] = request_id(request)
