"""A local server that speaks as much of S3 as model artifacts need, and misbehaves on request.

Path-style GET, HEAD, PUT (with ``If-None-Match: *`` and ``If-Match``), ranges, and ListObjectsV2 in pages; requests
must be signed with the right key id. A fault applies to the requests whose path ends as it says, so many times.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from aiohttp import web
from aiohttp.test_utils import TestServer

ALWAYS = 1_000_000
MODIFIED = "Sat, 21 Nov 2026 00:00:00 GMT"


@dataclass
class Fault:
    """What goes wrong with a request."""

    kind: str
    """status, truncate, hang, endless or gzip"""
    path: str = ""
    times: int = ALWAYS
    status: int = 500
    code: str = "InternalError"
    keep: int = 0
    """truncate and hang: how many bytes are sent first"""


@dataclass
class S3Api:
    """The server, its buckets and its faults."""

    key_id: str = "AKIDTESTTESTTEST"
    secret: str = "very/secret+key"
    page: int = 1000
    has_conditions: bool = True
    """Whether an object can be replaced on the condition that it is still the same."""
    buckets: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"models": {}})
    listing: dict[str, int] = field(default_factory=dict)
    """Objects that the listing shows in another size than they have, or though they are not there."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a request hangs."""
    server: TestServer = field(init=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    @property
    def objects(self) -> dict[str, bytes]:
        return self.buckets["models"]

    def downloads(self) -> list[str]:
        """The objects that were asked for."""
        return [
            path.removeprefix("/models/") for method, path in self.requests if method == "GET" and path != "/models"
        ]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[S3Api]:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{bucket}", self._bucket)
        app.router.add_route("*", "/{bucket}/{key:.+}", self._object)
        self.server = TestServer(app, host="127.0.0.1", shutdown_timeout=0)
        await self.server.start_server()
        try:
            yield self
        finally:
            await self.server.close()

    def _refuse(self, request: web.Request) -> web.Response | None:
        self.requests.append((request.method, request.path))
        if f"Credential={self.key_id}/" not in request.headers.get("Authorization", ""):
            return _error(403, "InvalidAccessKeyId")
        fault = self._fault(request, "status")
        if fault:
            return _error(fault.status, fault.code)
        if request.match_info["bucket"] not in self.buckets:
            return _error(404, "NoSuchBucket")
        return None

    def _fault(self, request: web.Request, *kinds: str) -> Fault | None:
        for fault in self.faults:
            if fault.kind in kinds and fault.times > 0 and request.path.endswith(fault.path):
                fault.times -= 1
                return fault
        return None

    async def _bucket(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refuse(request):
            return refusal
        objects = self.buckets[request.match_info["bucket"]]
        sizes = {key: len(data) for key, data in objects.items()} | self.listing
        after = request.query.get("continuation-token", "")
        keys = sorted(key for key in sizes if key.startswith(request.query.get("prefix", "")) and key > after)
        return _listing(((key, sizes[key]) for key in keys[: self.page]), more=len(keys) > self.page)

    async def _object(self, request: web.Request) -> web.StreamResponse:
        if refusal := self._refuse(request):
            return refusal
        objects, key = self.buckets[request.match_info["bucket"]], request.match_info["key"]
        if request.method == "PUT":
            return self._put(request, objects, key, await request.read())
        if key not in objects:
            return _error(404, "NoSuchKey")
        return await self._send(request, objects[key])

    def _put(self, request: web.Request, objects: dict[str, bytes], key: str, data: bytes) -> web.Response:
        if key in objects and request.headers.get("If-None-Match") == "*":
            return _error(412, "PreconditionFailed")
        wanted = request.headers.get("If-Match")
        if wanted is not None and not self.has_conditions:
            return _error(501, "NotImplemented")
        if wanted is not None and (key not in objects or wanted != _etag(objects[key])):
            return _error(412, "PreconditionFailed")
        objects[key] = data
        return web.Response(headers={"ETag": _etag(data)})

    async def _send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        headers = {"ETag": _etag(data), "Last-Modified": MODIFIED, "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if wanted := request.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        fault = self._fault(request, "truncate", "hang", "endless", "gzip")
        if fault is None:
            return web.Response(status=status, body=data, headers=headers)
        if fault.kind == "gzip":
            headers["Content-Encoding"] = "gzip"
            return web.Response(status=status, body=gzip.compress(data), headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = 1 << 40 if fault.kind == "endless" else len(data)
        await response.prepare(request)
        if fault.kind == "endless":
            while True:
                await response.write(bytes(1 << 16))
        await response.write(data[: fault.keep])
        if fault.kind == "hang":
            self.hanging.set()
            await asyncio.sleep(60)
        assert request.transport is not None
        request.transport.abort()
        return response


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _error(status: int, code: str) -> web.Response:
    body = (
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message><StringToSign>AWS4</StringToSign></Error>'
    )
    return web.Response(status=status, text=body, content_type="application/xml")


def _listing(entries: Iterable[tuple[str, int]], *, more: bool) -> web.Response:
    shown = list(entries)
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>"
        f"<LastModified>2026-11-21T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Contents>"
        for key, size in shown
    )
    token = f"<NextContinuationToken>{escape(shown[-1][0])}</NextContinuationToken>" if more else ""
    body = (
        f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>'
        f"<KeyCount>{len(shown)}</KeyCount>{contents}{token}</ListBucketResult>"
    )
    return web.Response(text=body, content_type="application/xml")
