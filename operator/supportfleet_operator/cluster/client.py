"""Requests to the API server: plain dicts in, plain dicts out.

The client retries nothing. Each of its callers is a loop that owns its retry (the work queue, a watch, the lease), and
two owners would multiply. What the server says about patience (``Retry-After``) slows the limiter and travels in the
error. Every request has a deadline; a watch has one for silence, so that a connection that died unnoticed is replaced.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

from supportfleet_operator.cluster.connection import Connection
from supportfleet_operator.cluster.limiter import Limiter
from supportfleet_operator.cluster.resources import BY_KIND, EVENTS, Manifest, ObjectRef, Resource, resource_of
from supportfleet_operator.errors import ApiError, Busy, NotFound, Unreachable, api_error

FIELD_MANAGER: Final = "supportfleet-operator"
REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)
WATCH_SECONDS: Final = 300
SILENCE_SECONDS: Final = 90
"""Bookmarks come about once a minute, but for kinds that never change: those streams are just opened again."""
WATCH_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_SECONDS)
PAGE: Final = 500
MAX_LINE: Final = 16 * 2**20
"""No object is larger than etcd's limit by far; a stream without a line end must not fill the memory."""

APPLY: Final = "application/apply-patch+yaml"  # JSON is YAML
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
MANAGED: Final = {"fieldManager": FIELD_MANAGER}

Record = Callable[[str, str, str, float], None]
"""Told of each request: verb, resource, status code, seconds."""


class Page(NamedTuple):
    """A part of a list."""

    items: list[Manifest]
    resource_version: str
    last: bool


class WatchEvent(NamedTuple):
    """What a watch says: ADDED, MODIFIED, DELETED or BOOKMARK, and the object; at first our own OPENED."""

    type: str
    object: Manifest


def _ignore(verb: str, resource: str, code: str, seconds: float) -> None:
    """Record nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as the limiter, the session and the metrics need to know it."""

    verb: str
    resource: Resource
    path: str
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    accept: str = JSON
    content: str = JSON
    deadline: aiohttp.ClientTimeout = REQUEST_TIMEOUT
    urgent: bool = False


class Client:
    """The API server, as this operator uses it."""

    def __init__(self, connection: Connection, limiter: Limiter, record: Record = _ignore) -> None:
        self._connection = connection
        self._limiter = limiter
        self._record = record

    async def get(
        self, resource: Resource, namespace: str | None, name: str, accept: str = JSON, *, urgent: bool = False
    ) -> Manifest | None:
        """The object, or None where there is none."""
        path = resource.path(namespace, name)
        try:
            return await self._answer(Request(verb="get", resource=resource, path=path, accept=accept, urgent=urgent))
        except NotFound:
            return None

    async def list_pages(
        self, resource: Resource, namespace: str | None = None, selector: str = "", limit: int = PAGE
    ) -> AsyncIterator[Page]:
        """The collection, in pages; items carry their kind, which lists leave out."""
        query = {"limit": str(limit)} | ({"labelSelector": selector} if selector else {})
        while True:
            body = await self._answer(
                Request(verb="list", resource=resource, path=resource.path(namespace), query=dict(query))
            )
            items: list[Manifest] = body.get("items") or []
            for item in items:
                item["kind"], item["apiVersion"] = resource.kind, resource.api_version
            metadata = body["metadata"]
            token = metadata.get("continue")
            yield Page(items, metadata.get("resourceVersion", ""), not token)
            if not token:
                return
            query["continue"] = token

    async def watch(
        self, resource: Resource, namespace: str | None, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """What happens after a version, until the stream ends or is silent; ``Gone`` when the version is too old."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        } | ({"labelSelector": selector} if selector else {})
        request = Request(
            verb="watch", resource=resource, path=resource.path(namespace), query=query, deadline=WATCH_TIMEOUT
        )
        try:
            async with await self._send(request) as response:
                yield WatchEvent("OPENED", {"metadata": {"resourceVersion": resource_version}})
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise api_error(int(event["object"].get("code") or 0), event["object"])
                    yield WatchEvent(event["type"], event["object"])
        except aiohttp.SocketTimeoutError:
            return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"watching {resource.plural}: {error}") from error

    async def apply(
        self,
        manifest: Manifest,
        *,
        manager: str = FIELD_MANAGER,
        force: bool = False,
        subresource: str = "",
        urgent: bool = False,
    ) -> Manifest:
        """Server-side apply; without ``force`` a ``Conflict`` names who holds which field."""
        resource, metadata = resource_of(manifest), manifest["metadata"]
        return await self._answer(
            Request(
                verb="apply",
                method="PATCH",
                resource=resource,
                path=resource.path(metadata.get("namespace"), metadata["name"], subresource),
                query={"fieldManager": manager} | ({"force": "true"} if force else {}),
                body=manifest,
                content=APPLY,
                urgent=urgent,
            )
        )

    async def json_patch(self, ref: ObjectRef, operations: list[dict[str, Any]]) -> Manifest:
        """JSON Patch, for the few changes that apply cannot express."""
        resource = BY_KIND[ref.kind]
        return await self._answer(
            Request(
                verb="patch",
                method="PATCH",
                resource=resource,
                path=resource.path(ref.namespace, ref.name),
                query=MANAGED,
                body=operations,
                content=JSON_PATCH,
            )
        )

    async def create(self, resource: Resource, manifest: Manifest, *, urgent: bool = False) -> Manifest:
        """Create an object; ``Conflict`` when there is one."""
        path = resource.path(manifest["metadata"].get("namespace"))
        return await self._answer(
            Request(
                verb="create",
                method="POST",
                resource=resource,
                path=path,
                query=MANAGED,
                body=manifest,
                urgent=urgent,
            )
        )

    async def update(self, resource: Resource, manifest: Manifest, *, urgent: bool = False) -> Manifest:
        """Replace an object; ``Conflict`` when its resourceVersion has moved on."""
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._answer(
            Request(
                verb="update", method="PUT", resource=resource, path=path, query=MANAGED, body=manifest, urgent=urgent
            )
        )

    async def delete(self, ref: ObjectRef, *, uid: str) -> bool:
        """Delete this very object and, in the background, what it owns; False where it is gone already."""
        resource = BY_KIND[ref.kind]
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        path = resource.path(ref.namespace, ref.name)
        try:
            await self._answer(Request(verb="delete", method="DELETE", resource=resource, path=path, body=options))
        except NotFound:
            return False
        return True

    async def served(self, resource: Resource) -> bool:
        """Whether the API server knows the kind."""
        path = f"/apis/{resource.group}/{resource.version}"
        try:
            found = await self._answer(Request(verb="discover", resource=resource, path=path))
        except NotFound:
            return False
        return any(one["name"] == resource.plural for one in found["resources"])

    async def _answer(self, request: Request) -> Manifest:
        """Send a request and read its whole answer."""
        if request.resource is not EVENTS:  # Events are news, not work: they must not hold work up
            await self._limiter.acquire(urgent=request.urgent)
        try:
            async with await self._send(request) as response:
                answer: Manifest = orjson.loads(await response.read())
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{request.verb} {request.path}: {error or 'timed out'}") from error

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        """The response, once its status says success."""
        headers = await self._connection.headers() | {"Accept": request.accept, "Content-Type": request.content}
        started, code = time.monotonic(), "none"
        try:
            response = await self._connection.session.request(
                request.method,
                self._connection.server + request.path,
                params=request.query,
                data=None if request.body is None else orjson.dumps(request.body),
                headers=headers,
                timeout=request.deadline,
                server_hostname=self._connection.server_hostname,
            )
            code = str(response.status)
            if response.ok:
                return response
            async with response:
                raise self._failure(response.status, response.headers, await response.read())
        finally:
            self._record(request.verb, request.resource.plural, code, time.monotonic() - started)

    def _failure(self, status: int, headers: Mapping[str, str], raw: bytes) -> ApiError:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:  # a proxy's page, not the API server's Status
            body = {"message": raw[:200].decode(errors="replace")}
        after = headers.get("Retry-After", "")
        error = api_error(status, body if isinstance(body, dict) else {}, float(after) if after.isdigit() else None)
        if isinstance(error, Busy) and error.retry_after:
            self._limiter.pause(error.retry_after)
        return error


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; aiohttp's own readline fails beyond its buffer."""
    pending: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*pending, end])
            pending, size = [], 0
            if line:
                yield line
        if rest:
            pending.append(rest)
            size += len(rest)
        if size > MAX_LINE:
            raise Unreachable(f"a watch sent more than {MAX_LINE} bytes without a line end")
