"""Rate limits over HTTP: 429 with ``Retry-After``, and how the customer stands with every answer.

``RateLimit-Policy`` and ``RateLimit`` are those of the IETF's draft: the quota (``q``) and its window (``w``), what
remains (``r``) and after how many seconds all of it is there again (``t``). A request whose customer is not known, as
a backend's that reads a task by its id alone, is not counted.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

from aiohttp import web

from supportfleet_runtime.gateway.buckets import Buckets, Standing
from supportfleet_runtime.gateway.problems import HttpProblemError

WINDOW: Final = 60.0
_STANDING: Final = web.RequestKey("standing", Standing)


class Limits:
    """What the endpoints charge requests to; without ``buckets`` nothing is limited."""

    def __init__(self, buckets: Buckets | None = None) -> None:
        self._buckets = buckets

    async def charge(self, request: web.Request, customer: str | None, *, mirrored: bool = False) -> None:
        """Count the request to its customer, or refuse it. Copies are counted apart from what they are copies of."""
        if self._buckets is None or customer is None:
            return
        standing = request[_STANDING] = await self._buckets.take(f"\0{customer}" if mirrored else customer)
        if not standing.allowed:
            headers = {"Retry-After": str(max(1, math.ceil(standing.retry_in)))}
            detail = f"more than {self._buckets.policy.quota} requests a minute for this customer"
            raise HttpProblemError(HTTPStatus.TOO_MANY_REQUESTS, "rate-limited", detail, headers=headers)

    async def tell(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell how the customer stands (a signal handler)."""
        standing = request.get(_STANDING)
        if standing is not None and self._buckets is not None:
            policy = self._buckets.policy
            response.headers["RateLimit-Policy"] = f'"customer";q={policy.quota};w={policy.window:.0f}'
            remains = f'"customer";r={standing.remaining};t={math.ceil(standing.full_in)}'
            response.headers["RateLimit"] = remains

    async def close(self, _app: web.Application) -> None:
        """Let go of the buckets (at the application's end)."""
        if self._buckets is not None:
            await self._buckets.close()
