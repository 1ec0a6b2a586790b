"""``Idempotency-Key``: a message that is sent again with the same key is the same message.

The answer is then the first one's, also while that is still under way; another message under the same key is refused.
"""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from supportfleet_runtime.conversations.records import Once
from supportfleet_runtime.gateway.endpoints import Parameter
from supportfleet_runtime.gateway.problems import FieldError, HttpProblemError

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
PATTERN: Final = "^[!-~]{1,255}$"
PARAMETER: Final = Parameter(
    HEADER,
    "header",
    "Any text of the caller's choice, such as a UUID: a message sent again with it within 24 hours is taken in once.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": PATTERN},
)
_ACCEPTED: Final = re.compile(PATTERN)


def read_once(request: web.Request, message: BaseModel) -> Once | None:
    """The request's key, and what it is the key of."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _ACCEPTED.fullmatch(key):
        errors = [FieldError(HEADER, "1 to 255 printable ASCII characters without spaces")]
        detail = "the header is not as documented"
        raise HttpProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-header", detail, errors)
    return Once(key, hashlib.sha256(message.model_dump_json().encode()).hexdigest())
