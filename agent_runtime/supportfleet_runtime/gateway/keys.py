"""API keys, where any are configured: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

Probes and metrics stay open: the kubelet and Prometheus carry no key, and they tell nothing of customers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from supportfleet_runtime.gateway.problems import Handler, HttpProblemError

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def key_middleware(keys: Sequence[str]) -> Middleware:
    """Refuse requests without one of ``keys``."""
    digests = [_digest(key) for key in keys]

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS:
            return await handler(request)
        given = _digest(_given(request))
        # Every key is compared, and in constant time: how long it takes tells nothing.
        matches = [hmac.compare_digest(given, digest) for digest in digests]
        if not any(matches):
            headers = {"WWW-Authenticate": "Bearer"}
            detail = "send an API key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            raise HttpProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, headers=headers)
        return await handler(request)

    return check


def _given(request: web.Request) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
