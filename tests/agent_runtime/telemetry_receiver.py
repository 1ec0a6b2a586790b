"""A server that takes OTLP over HTTP, as a collector or Datadog's intake does, and keeps what it was sent.

``status`` is what it answers: nothing is kept of what it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto

PATIENCE = 30.0


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    fields: dict[str, Any]
    resource: dict[str, Any]
    begun: int
    ended: int
    failed: bool


class Receiver:
    """The fake. ``bodies`` are the requests as they came, uncompressed; ``headers`` those of each."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.spans: list[Seen] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.requests = 0
        self._arrived = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Receiver]:
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/metrics", self._metrics)
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self

    async def until(self, *names: str) -> list[Seen]:
        """All spans, once there is one of each of these names."""
        async with asyncio.timeout(PATIENCE):
            while not {span.name for span in self.spans} >= set(names):
                self._arrived.clear()
                await self._arrived.wait()
        return self.spans

    def named(self, name: str) -> Seen:
        """The one span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    async def _traces(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if self.status == 200:
            self.bodies.append(body)
            self.spans += [
                _seen(span, _values(group.resource.attributes))
                for group in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope in group.scope_spans
                for span in scope.spans
            ]
        return self._answer()

    async def _metrics(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if self.status == 200:
            self.bodies.append(body)
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        return self._answer()

    async def _body(self, request: web.Request) -> bytes:
        assert request.content_type == "application/x-protobuf"
        self.requests += 1
        self.headers.append(dict(request.headers))
        body = await request.read()  # aiohttp unpacks gzip
        return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body

    def _answer(self) -> web.Response:
        self._arrived.set()
        return web.Response(status=self.status)


def _seen(span: Proto, resource: dict[str, Any]) -> Seen:
    return Seen(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=Proto.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        fields=_values(span.attributes),
        resource=resource,
        begun=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
