"""A fake API server over HTTP, for tests of what talks to one: storage, watches, server-side apply, faults.

It keeps what the operator relies on: resource versions in one order, watches that replay from a version, optimistic
locking, preconditions, ownership of fields and their conflicts, and lists in pages. Lists inside of objects are atomic
but for those that server-side apply merges by key. Whatever depends on more than that is tested on a real API server.
"""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession, web

from supportfleet_operator.api import InvalidSupportAgentError
from supportfleet_operator.cluster.client import FIELD_MANAGER, Client
from supportfleet_operator.cluster.connection import Connection
from supportfleet_operator.cluster.limiter import Limiter
from supportfleet_operator.cluster.resources import (
    CHILDREN,
    EVENTS,
    LEASES,
    OPTIONAL,
    PODS,
    SECRETS,
    STORAGE_CLASSES,
    SUPPORT_AGENTS,
    ObjectRef,
    Resource,
    ref_of,
)
from supportfleet_operator.reconcile.desired import Desired, Rendered, read
from supportfleet_operator.reconcile.observe import Observed, layer_of, observe, revision_of
from supportfleet_operator.reconcile.plan import Plan, model_gate, plan
from supportfleet_operator.reconcile.policies import first_finding
from supportfleet_operator.reconcile.policies.base import ChildProblem, View
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.reconcile.probes import Figures
from supportfleet_operator.reconcile.references import Missing
from supportfleet_operator.reconcile.settlements import Settlement
from supportfleet_operator.reconcile.status import status_of
from supportfleet_operator.rollout import Answer, Query

KNOWN = {
    one.plural: one for one in (*CHILDREN, *OPTIONAL, EVENTS, LEASES, PODS, SECRETS, STORAGE_CLASSES, SUPPORT_AGENTS)
}
LIST_KEYS = {"containers": "name", "env": "name", "volumes": "name", "ports": "port", "conditions": "type"}
WITH_GENERATION = {"Deployment", "SupportAgent", "Job", "HorizontalPodAutoscaler", "NetworkPolicy"}
Manifest = dict[str, Any]
Path = tuple[str, ...]
START = 100


class Failure(Exception):  # noqa: N818 - an HTTP answer
    def __init__(self, status: int, reason: str, message: str = "", causes: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "kind": "Status",
            "code": status,
            "reason": reason,
            "message": message or reason,
            "details": {"causes": causes or []},
        }


@dataclass
class Fault:
    """An answer given instead of the right one, so many times."""

    match: Callable[[str, str], bool]
    status: int
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass
class FakeApi:
    """The server's state, and what tests do to it."""

    url: str = ""
    objects: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)
    log: list[tuple[int, str, Manifest]] = field(default_factory=list)
    version: int = START
    oldest: int = 0
    """Watches from before this version are told 410 Gone."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path and body of every request but watches."""
    lists: int = 0
    watches: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0
    bookmarks: bool = True
    absent: set[str] = field(default_factory=set)
    """Plurals of kinds whose CustomResourceDefinition is not installed."""

    # What tests do.

    def put(self, manifest: Manifest, subresource: str = "") -> Manifest:
        """Store an object as somebody else would."""
        resource = next(one for one in KNOWN.values() if one.kind == manifest["kind"])
        key = (resource.plural, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        return self._store(key, copy.deepcopy(manifest), resource)

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return self.objects.get((resource.plural, namespace, name))

    def all(self, resource: Resource) -> list[Manifest]:
        return [value for (plural, _, _), value in self.objects.items() if plural == resource.plural]

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        gone = self.objects.pop((resource.plural, namespace, name))
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._announce("DELETED", gone)

    def fail(self, status: int, *, times: int = 1, method: str = "", path: str = "", **more: Any) -> None:
        """Answer the next matching requests with a failure."""
        self.faults.append(Fault(lambda m, p: method in ("", m) and path in p, status, times, **more))

    def drop_watches(self) -> None:
        """Close every open watch."""
        self.dropped += 1
        self._wake()

    def compact(self) -> None:
        """Forget all history: watches from old versions are told so."""
        self.version += 1
        self.oldest = self.version
        self.log.clear()
        self.drop_watches()

    def writes(self) -> list[tuple[str, str]]:
        """Requests that were not reads, Events and leases aside."""
        return [
            (method, path)
            for method, path, _ in self.requests
            if method != "GET" and "/leases" not in path and "/events" not in path
        ]

    # What it serves.

    async def handle(self, request: web.Request) -> web.StreamResponse:
        sent = await request.text()
        body = json.loads(sent) if sent else None
        if "watch" not in request.query:
            self.requests.append((request.method, request.path, body))
        for fault in self.faults:
            if fault.times > 0 and fault.match(request.method, request.path):
                fault.times -= 1
                text = json.dumps(fault.body) + "\n"  # the line's end is what a watch reads for
                headers = {"Content-Type": "application/json", **fault.headers}
                return web.Response(text=text, status=fault.status, headers=headers)
        try:
            if (found := _discovery(request.path, self.absent)) is not None:
                return web.json_response(found)
            resource, namespace, name, subresource = _parse(request.path, self.absent)
            if not name and request.method == "GET":
                if "watch" in request.query:
                    return await self._watch(request, resource, namespace)
                return web.json_response(self._list(request, resource, namespace))
            answer = self._one(request, resource, (resource.plural, namespace, name), subresource, body)
            return web.json_response(answer)
        except Failure as failure:
            return web.json_response(failure.body, status=failure.status)

    def _one(
        self, request: web.Request, resource: Resource, key: tuple[str, str, str], subresource: str, body: Any
    ) -> Manifest:
        live = self.objects.get(key)
        if request.method == "POST":
            name = body["metadata"].get("name") or body["metadata"]["generateName"] + uuid.uuid4().hex[:5]
            key = (*key[:2], name)
            if key in self.objects:
                raise Failure(409, "AlreadyExists")
            body["metadata"]["name"] = name
            return self._store(key, body, resource)
        if request.method == "PATCH" and request.content_type == "application/apply-patch+yaml":
            return self._apply(request, resource, key, subresource, body)
        if live is None:
            raise Failure(404, "NotFound", f"{key[0]} {key[2]!r} not found")
        if request.method == "GET":
            partial = "PartialObjectMetadata" in request.headers["Accept"]
            return {"kind": "PartialObjectMetadata", "metadata": live["metadata"]} if partial else live
        if request.method == "DELETE":
            if body["preconditions"]["uid"] != live["metadata"]["uid"]:
                raise Failure(409, "Conflict", "the uid in the precondition does not match")
            self.remove(resource, key[1], key[2])
            return {"kind": "Status", "status": "Success"}
        if request.method == "PATCH":
            return self._json_patch(resource, key, live, body)
        if body["metadata"].get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise Failure(409, "Conflict", "the object has been modified")
        return self._store(key, body, resource)

    def _json_patch(self, resource: Resource, key: tuple[str, str, str], live: Manifest, body: Any) -> Manifest:
        changed = copy.deepcopy(live)
        for one in body:
            if one["path"] == "/metadata/resourceVersion" and one["value"] != live["metadata"]["resourceVersion"]:
                raise Failure(409, "Conflict", "the object has been modified")
            changed["metadata"][one["path"].removeprefix("/metadata/")] = one["value"]
        return self._store(key, changed, resource)

    def _list(self, request: web.Request, resource: Resource, namespace: str) -> Manifest:
        self.lists += 1
        selector = request.query.get("labelSelector", "")
        found = [
            value
            for (plural, where, _), value in sorted(self.objects.items())
            if plural == resource.plural and namespace in ("", where) and _selected(value, selector)
        ]
        begin, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        rest = {"continue": str(begin + limit)} if begin + limit < len(found) else {}
        items = [{k: v for k, v in one.items() if k not in ("kind", "apiVersion")} for one in found]
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        metadata = {"resourceVersion": str(self.version), **rest}
        return {**head, "metadata": metadata, "items": items[begin : begin + limit]}

    async def _watch(self, request: web.Request, resource: Resource, namespace: str) -> web.StreamResponse:
        self.watches += 1
        since, dropped = int(request.query["resourceVersion"]), self.dropped
        if since < self.oldest:
            raise Failure(410, "Expired", "too old resource version")
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):  # its client has gone
            await self._tell(response, resource, namespace, request.query.get("labelSelector", ""), since, dropped)
        return response

    async def _tell(
        self, response: web.StreamResponse, resource: Resource, namespace: str, selector: str, since: int, dropped: int
    ) -> None:
        """Write events as they come, until watches are dropped."""
        before = set[str]()
        while self.dropped == dropped:
            for version, kind, value in list(self.log):
                if version <= since or value["kind"] != resource.kind:
                    continue
                if namespace not in ("", value["metadata"].get("namespace")):
                    continue
                since, name = version, value["metadata"]["name"]
                if _selected(value, selector):
                    before.add(name)
                    await response.write(_line(kind, value))
                elif name in before:  # it is no longer selected, which a watch tells as a deletion
                    before.discard(name)
                    await response.write(_line("DELETED", value))
            news = self.news
            mark = {"kind": resource.kind, "metadata": {"resourceVersion": str(self.version)}}
            if self.bookmarks:
                await response.write(_line("BOOKMARK", mark))
            await news.wait()

    def _apply(
        self, request: web.Request, resource: Resource, key: tuple[str, str, str], subresource: str, body: Manifest
    ) -> Manifest:
        live = self.objects.get(key)
        if subresource and live is None:
            raise Failure(404, "NotFound")
        if (uid := body["metadata"].get("uid")) and (live is None or live["metadata"]["uid"] != uid):
            raise Failure(409, "Conflict", "uid mismatch")
        version = body["metadata"].pop("resourceVersion", None)
        if live is not None and version not in (None, live["metadata"]["resourceVersion"]):
            raise Failure(409, "Conflict", "the object has been modified")
        manager, force = request.query["fieldManager"], request.query.get("force") == "true"
        merged = copy.deepcopy(live) if live else {"apiVersion": body["apiVersion"], "kind": body["kind"]}
        entries = merged.setdefault("metadata", {}).pop("managedFields", [])
        mine = next((one for one in entries if one["manager"] == manager and one["operation"] == "Apply"), None)
        others = [one for one in entries if one is not mine]
        wanted = _wanted(body)
        causes = _conflicts(merged, wanted, others, body["apiVersion"])
        if causes and not force:
            raise Failure(409, "Conflict", f"Apply failed with {len(causes)} conflicts", causes)
        _merge(merged, wanted, mine, others)
        entry = {"manager": manager, "operation": "Apply", "fieldsV1": _tree(wanted)}
        if subresource:
            entry["subresource"] = subresource
        merged["metadata"]["managedFields"] = [one for one in others if one["fieldsV1"]] + [entry]
        merged["metadata"].update({k: v for k, v in body["metadata"].items() if k in ("name", "namespace")})
        return merged if merged == live else self._store(key, merged, resource)

    def _store(self, key: tuple[str, str, str], manifest: Manifest, resource: Resource) -> Manifest:
        before = self.objects.get(key)
        self.version += 1
        metadata = manifest["metadata"]
        if resource.namespaced:
            metadata["namespace"] = key[1]
        metadata["uid"] = before["metadata"]["uid"] if before else metadata.get("uid") or str(uuid.uuid4())
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("creationTimestamp", dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if manifest.get("kind") in WITH_GENERATION:
            same = before is not None and before.get("spec") == manifest.get("spec")
            metadata["generation"] = int((before or {"metadata": {}})["metadata"].get("generation", 0)) + (not same)
        manifest.setdefault("apiVersion", resource.api_version)
        manifest.setdefault("kind", resource.kind)
        if resource.kind == "Deployment":
            manifest["spec"].setdefault("replicas", 1)
        self.objects[key] = manifest
        self._announce("MODIFIED" if before else "ADDED", manifest)
        return copy.deepcopy(manifest)

    def _announce(self, kind: str, manifest: Manifest) -> None:
        self.log.append((self.version, kind, copy.deepcopy(manifest)))
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


def _discovery(path: str, absent: set[str]) -> Manifest | None:
    """What groups, versions and kinds there are; None where the path is not about that."""
    groups = {one.group: one.version for one in KNOWN.values() if one.group}
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        versions = [(name, {"version": version}) for name, version in groups.items()]
        return {"groups": [{"name": n, "versions": [v], "preferredVersion": v} for n, v in versions]}
    parts = path.strip("/").split("/")
    group = "" if parts == ["api", "v1"] else parts[1] if len(parts) == 3 and parts[0] == "apis" else None
    if group is None:
        return None
    known = [
        (one.plural, one.kind, one.namespaced)
        for one in KNOWN.values()
        if one.group == group and one.plural not in absent
    ]
    if group and not known:
        raise Failure(404, "NotFound", f"no group {group}")
    return {
        "resources": [
            {"name": plural, "kind": kind, "namespaced": scoped, "singularName": "", "verbs": ["list", "watch"]}
            for plural, kind, scoped in [*known, ("namespaces", "Namespace", False)]
        ]
    }


def _parse(path: str, absent: set[str]) -> tuple[Resource, str, str, str]:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = (*parts, "", "")[:3]
    if plural not in KNOWN or plural in absent:
        raise Failure(404, "NotFound", path)
    return KNOWN[plural], namespace, name, subresource


def _selected(manifest: Manifest, selector: str) -> bool:
    labels = manifest["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, _, value = part.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    return True


def _line(kind: str, manifest: Manifest) -> bytes:
    return json.dumps({"type": kind, "object": manifest}).encode() + b"\n"


def _wanted(body: Manifest) -> dict[Path, Any]:
    identity = {("apiVersion",), ("kind",), *(("metadata", key) for key in ("name", "namespace", "uid"))}
    return {path: value for path, value in _leaves(body) if path not in identity}


def _conflicts(live: Manifest, wanted: dict[Path, Any], others: list[Manifest], version: str) -> list[dict[str, str]]:
    return [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{other["manager"]}" using {version}',
            "field": _text(path),
        }
        for path, value in wanted.items()
        for other in others
        if _holds(other["fieldsV1"], path) and _at(live, path) != value
    ]


def _merge(live: Manifest, wanted: dict[Path, Any], mine: Manifest | None, others: list[Manifest]) -> None:
    for path in _paths(mine["fieldsV1"]) if mine else []:
        if path not in wanted and not any(_holds(other["fieldsV1"], path) for other in others):
            _drop(live, path)
    for path, value in wanted.items():
        if _at(live, path) != value:
            for other in others:
                _release(other["fieldsV1"], path)
        _put(live, path, value)


def _tree(wanted: dict[Path, Any]) -> Manifest:
    tree: Manifest = {}
    for path in wanted:
        below = tree
        for step in path:
            below = below.setdefault(step if step.startswith("k:") else f"f:{step}", {})
    return tree


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    key = LIST_KEYS.get(path[-1].removeprefix("f:")) if path else None
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*path, name))
    elif isinstance(value, list) and key and all(isinstance(one, dict) and key in one for one in value):
        for one in value:
            yield from _leaves(one, (*path, f"k:{json.dumps({key: one[key]})}"))
    else:
        yield path, value


def _at(tree: Any, path: Path) -> Any:
    for step in path:
        if step.startswith("k:"):
            (key, wanted), *_ = json.loads(step[2:]).items()
            tree = next((one for one in tree or () if one.get(key) == wanted), None)
        else:
            tree = (tree or {}).get(step)
    return tree


def _put(tree: Any, path: Path, value: Any) -> None:
    for step, following in zip(path, (*path[1:], ""), strict=True):
        if step.startswith("k:"):
            (key, wanted), *_ = json.loads(step[2:]).items()
            found = next((one for one in tree if one.get(key) == wanted), None)
            if found is None:
                found = {key: wanted}
                tree.append(found)
            tree = found
        elif not following:
            tree[step] = copy.deepcopy(value)
        else:
            tree = tree.setdefault(step, [] if following.startswith("k:") else {})


def _drop(tree: Any, path: Path) -> None:
    parent = _at(tree, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
    if path[-2:-1] and path[-2].startswith("k:") and path[-1] in json.loads(path[-2][2:]):
        items = _at(tree, path[:-2])
        items[:] = [one for one in items if path[-1] in one]


def _paths(tree: Manifest, path: Path = ()) -> Iterator[Path]:
    for step, below in tree.items():
        name = step if step.startswith("k:") else step.removeprefix("f:")
        if below:
            yield from _paths(below, (*path, name))
        elif step != ".":
            yield (*path, name)


def _holds(tree: Manifest, path: Path) -> bool:
    for step in path:
        name = step if step.startswith("k:") else f"f:{step}"
        if name not in tree:
            return False
        tree = tree[name]
    return True


def _release(tree: Manifest, path: Path) -> None:
    name = path[0] if path[0].startswith("k:") else f"f:{path[0]}"
    if name not in tree:
        return
    if len(path) > 1:
        _release(tree[name], path[1:])
    if len(path) == 1 or not tree[name]:
        del tree[name]


def _text(path: Path) -> str:
    text = ""
    for step in path:
        if step.startswith("k:"):
            (key, value), *_ = json.loads(step[2:]).items()
            text += f"[{key}={json.dumps(value)}]"
        else:
            text += f".{step}"
    return text


class Anonymous:
    """What a connection without credentials needs of a configuration."""

    tls_server_name = None

    async def get_api_key_with_prefix(self, name: str, alias: str) -> str | None:
        return None


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def served() -> AsyncIterator[Callable[[str, str, Handler], Awaitable[int]]]:
    """Serves a handler for a method and a path on loopback, until the test is over; gives the port."""
    runners: list[web.AppRunner] = []

    async def start(method: str, path: str, handler: Handler) -> int:
        app = web.Application()
        app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def api(served: Callable[[str, str, Handler], Awaitable[int]]) -> AsyncIterator[FakeApi]:
    """A fake API server on loopback."""
    fake = FakeApi()
    fake.url = f"http://127.0.0.1:{await served('*', '/{path:.*}', fake.handle)}"
    yield fake
    fake.drop_watches()


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[Client]:
    """A client of the fake API server, with no limit to speak of."""
    async with ClientSession() as session:
        yield Client(Connection(api.url, session, Anonymous()), Limiter(10_000, 10_000))


NOW = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)
DIGEST = "sha256:" + "a" * 64


def stamp(seconds_ago: float = 0) -> str:
    return (NOW - dt.timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


REPLICAS_ARE_OURS = {
    "manager": FIELD_MANAGER,
    "operation": "Apply",
    "fieldsV1": {"f:spec": {"f:replicas": {}}},
}


class World:
    """An agent and what the cluster holds of it, in plain values, for tests of decisions."""

    digest = DIGEST
    stamp = staticmethod(stamp)

    def __init__(self, **spec: Any) -> None:
        self.now = NOW
        self.agent: Manifest = {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {
                "name": "desk",
                "namespace": "shop",
                "uid": "agent-uid",
                "generation": 1,
                "resourceVersion": "1",
            },
            "spec": {"template": {"image": "agent:1"}, **spec},
            "status": {},
        }
        self.objects: dict[ObjectRef, Manifest] = {}
        self.pods: list[Manifest] = []
        self.missing: tuple[Missing, ...] = ()
        self.settlements: dict[str, Settlement] = {}
        self.served: frozenset[str] = frozenset()
        self.figures: Figures | None = None
        self.answers: dict[Query, Answer] = {}
        self.loading: Figures | None = None
        self.unready: set[str] = set()
        """Revisions whose pods do not become ready, or after a slash a layer of one."""

    @classmethod
    def with_model(cls, **spec: Any) -> World:
        return cls(model={"uri": "s3://models/intent", "version": "1", "digest": DIGEST}, **spec)

    @property
    def desired(self) -> Desired:
        return read(self.agent)

    @property
    def revision(self) -> str:
        """The revision that the spec describes."""
        return self.desired.revision

    @property
    def rendered(self) -> Rendered:
        """The children that are wanted now."""
        found = self.plan().rendered
        assert found is not None
        return found

    @property
    def rollout(self) -> Manifest:
        """What the status says of the rollout."""
        return self.agent["status"].get("rollout") or {}

    def edit(self, **spec: Any) -> World:
        """Change the spec, as a user does."""
        self.agent["spec"] = {**self.agent["spec"], **spec}
        self.agent["metadata"]["generation"] += 1
        return self

    def ask(self, action: str, revision: str, request: str = "1") -> World:
        """Annotate the agent, as the command line does."""
        names = ("action", "action-revision", "action-id")
        values = zip(names, (action, revision, request), strict=True)
        self.agent["metadata"]["annotations"] = {f"supportfleet.dev/{name}": value for name, value in values}
        return self

    def plan(self) -> Plan:
        return plan(self.observed(), self.now)

    def step(self) -> Plan:
        """One round of the reconciler, with controllers and kubelets doing their part after it."""
        found = self.plan()
        if found.decision is not None:
            self.agent["status"]["rollout"] = found.decision.state.to_status().manifest()
        self.carry_out(found)
        return found

    def settle(self, rounds: int = 60) -> World:
        """Rounds until nothing is left to do at this time."""
        for _ in range(rounds):
            before = self.rollout
            if self.step().is_empty and self.rollout == before:
                return self
        raise AssertionError(f"not settled after {rounds} rounds: {self.rollout}")

    def after(self, seconds: float) -> World:
        """Time passes."""
        self.now += dt.timedelta(seconds=seconds)
        return self

    def applied(self, *, but: str = "") -> World:
        """Everything desired exists as applied, and the spec's revision is the stable one; except one kind."""
        self.settle().after(3600).settle()
        self.now = NOW
        self.objects = {ref: live for ref, live in self.objects.items() if ref.kind != but}
        return self

    def put(self, manifest: Manifest, *, owned: bool = True) -> Manifest:
        """An object as the API server would hold it."""
        live = copy.deepcopy(manifest)
        live["metadata"] |= {"uid": f"uid-{manifest['kind']}-{manifest['metadata']['name']}", "resourceVersion": "5"}
        live["metadata"] |= {"generation": 1, "creationTimestamp": stamp(600)}
        if not owned:
            live["metadata"].pop("ownerReferences", None)
        self.objects[ref_of(live)] = live
        return live

    def carry_out(self, found: Plan) -> None:
        """Do what a plan says, as the API server and the controllers would: Jobs succeed and pods roll out."""
        for removal in (*found.before, *found.after):
            del self.objects[removal.ref]
        for write in found.writes:
            before = self.objects.get(write.ref)
            live = self.put(write.manifest)
            if write.ref.kind == "Deployment" and "replicas" in write.manifest["spec"]:
                live["metadata"]["managedFields"] = [REPLICAS_ARE_OURS]
            elif write.ref.kind == "Deployment":
                known = before["spec"]["replicas"] if before else 1
                live["spec"]["replicas"] = known if write.replicas is None else write.replicas
            if write.ref.kind == "Job":
                live["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        self.autoscale()
        self.rolled_out()

    def autoscale(self) -> None:
        """Autoscalers keep to their bounds."""
        for ref, scaler in self.objects.items():
            target = ObjectRef("Deployment", ref.namespace, ref.name)
            if ref.kind == "HorizontalPodAutoscaler" and target in self.objects:
                spec = self.objects[target]["spec"]
                least, most = scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
                spec["replicas"] = max(least, min(spec["replicas"], most)) if spec["replicas"] else 0

    def child(self, kind: str, revision: str | None = None, layer: str | None = None) -> Manifest:
        """The child of a kind, of one revision where there are several, or of a layer of it."""
        found = [one for ref, one in self.objects.items() if ref.kind == kind and layer_of(one) == layer]
        return next(one for one in found if revision in (None, revision_of(one)))

    def rolled_out(self, available: int | None = None) -> World:
        """The Deployments' pods run, and but for those that are said not to they are ready."""
        self.pods = [pod for pod in self.pods if not pod["metadata"]["name"].startswith("run-")]
        for deployment in [one for ref, one in self.objects.items() if ref.kind == "Deployment"]:
            revision, wanted, layer = revision_of(deployment), deployment["spec"]["replicas"], layer_of(deployment)
            broken = revision in self.unready or f"{revision}/{layer}" in self.unready
            ready = 0 if broken else wanted if available is None else available
            deployment["status"] = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": wanted,
                "updatedReplicas": wanted,
                "availableReplicas": ready,
                "readyReplicas": ready,
                "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
            }
            for number in range(wanted):
                state = {"type": "Ready", "status": "True" if number < ready else "False"}
                running = {"phase": "Running", "conditions": [state], "podIP": f"10.1.0.{number}"}
                pod = self.pod(layer or "agent", revision, **running)
                pod["metadata"]["name"] = f"run-{revision}-{f'{layer}-' if layer else ''}{number}"
        return self

    def pod(self, component: str = "agent", revision: str | None = None, **status: Any) -> Manifest:
        """A pod of the agent or of its Job, with a status."""
        labels = {"supportfleet.dev/agent": "desk", "app.kubernetes.io/component": component}
        if component in {"agent", "worker", "tools"}:
            labels["supportfleet.dev/revision"] = self.revision if revision is None else revision
        number = sum(1 for one in self.pods if one["metadata"]["name"].startswith("desk-pod-"))
        metadata: Manifest = {"name": f"desk-pod-{number}", "namespace": "shop", "labels": labels}
        metadata["annotations"] = {"supportfleet.dev/model-digest": DIGEST}
        if component == "model-sync":
            metadata["ownerReferences"] = [{"controller": True, "uid": self.child("Job")["metadata"]["uid"]}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
        self.pods.append(pod)
        return pod

    def waiting(
        self, reason: str, message: str = "", *, component: str = "agent", container: str = "agent"
    ) -> Manifest:
        """A pod whose container waits."""
        state = {"name": container, "restartCount": 3, "state": {"waiting": {"reason": reason, "message": message}}}
        return self.pod(component, phase="Pending", containerStatuses=[state])

    def report(self, kind: str, status: str, *, seconds_ago: float = 60, reason: str = "R") -> World:
        """A condition of the agent from an earlier round."""
        conditions = self.agent["status"].setdefault("conditions", [])
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": "m",
                "lastTransitionTime": stamp(seconds_ago),
                "observedGeneration": self.agent["metadata"]["generation"],
            }
        )
        return self

    def observed(self) -> Observed:
        try:
            desired, problems = self.desired, ()
        except InvalidSupportAgentError as error:
            desired, problems = None, error.problems
        return observe(
            self.agent,
            [*self.objects.values(), *self.pods],
            desired=desired,
            problems=problems,
            missing=self.missing,
            settlements=self.settlements,
            served=self.served,
            figures=self.figures,
            answers=self.answers,
            loading=self.loading,
        )

    def view(self, *problems: ChildProblem) -> View:
        observed, found = self.observed(), self.plan()
        gate = model_gate(observed, found.rendered, found.following, self.now)
        return View(observed, self.now, tuple(problems), gate, found.decision, found.rendered, found.following)

    def status(self, *problems: ChildProblem) -> Manifest:
        """The status that the agent should have now."""
        view = self.view(*problems)
        return status_of(view, view.gate or Gate("NotNeeded"), first_finding(view))


@pytest.fixture(scope="session")
def world() -> type[World]:
    """Makes agents with what the cluster holds of them."""
    return World


@pytest.fixture
def recorded() -> deque[Any]:
    """A place for callbacks to leave what they were told."""
    return deque()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Wait for a condition that the event loop brings about."""

    async def wait(condition: Callable[[], Any], message: str = "", seconds: float = 10.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := condition()):  # noqa: ASYNC110 - any condition, not only those with an event
                await asyncio.sleep(0.005)
        return found

    return wait
