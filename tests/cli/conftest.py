"""An API server for the command line's commands on agents: objects in memory, behind a kubectl that only serves it.

Commands run in this process, as ``main`` runs them. kubectl is a script whose proxy leads to the server's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import json
import runpy
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from supportfleet.__main__ import main

merged = runpy.run_path(str(Path(__file__).parent.parent / "merge_patch.py"))["merged"]
AGENTS = "/apis/supportfleet.dev/v1alpha1"
APPS = "/apis/apps/v1"
PLURALS = {"SupportAgent": "supportagents", "Deployment": "deployments", "ControllerRevision": "controllerrevisions"}
KUBECTL = """#!/bin/sh
echo "$@" >> {calls}
for word in "$@"; do
  case $word in
    --unix-socket=*) path=${{word#--unix-socket=}}; ln -s {socket} "$path"; echo "Starting to serve"; exec sleep 600 ;;
  esac
done
case "$*" in
  *"config view"*) printf shop ;;
  *"get supportagents -o name"*) printf 'supportagent.supportfleet.dev/desk\\nsupportagent.supportfleet.dev/door\\n' ;;
  *) echo "what is $*?" >&2; exit 1 ;;
esac
"""


@dataclass
class Refusal:
    code: int
    message: str
    causes: list[dict[str, str]] = field(default_factory=list)
    only_unforced: bool = False


@dataclass
class FakeApi:
    """What a test puts in and looks at; ``changed`` is told of every write, and may write more."""

    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], Any, str]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    """Answers to the next changes, instead of making them."""
    breaks: int = 0
    """How many of the next watches break off at once."""
    changed: Callable[[dict[str, Any]], None] | None = None
    version: int = 100
    calls: Path = Path()
    """What kubectl was called with."""
    _streams: list[tuple[str, asyncio.Queue[Any]]] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create or replace an object; watches see it."""
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        key = (PLURALS[obj["kind"]], meta.setdefault("namespace", "shop"), meta["name"])
        self.version += 1
        kind = "MODIFIED" if key in self.objects else "ADDED"
        meta.setdefault("uid", f"uid-{key[0]}-{key[1]}-{key[2]}")
        meta["resourceVersion"] = str(self.version)
        self.objects[key] = obj
        self._tell(key[0], {"type": kind, "object": obj})
        return obj

    def remove(self, plural: str, name: str, namespace: str = "shop") -> None:
        self._tell(plural, {"type": "DELETED", "object": self.objects.pop((plural, namespace, name))})

    def agent(self, name: str = "desk") -> dict[str, Any]:
        return copy.deepcopy(self.objects["supportagents", "shop", name])

    def status(self, name: str = "desk", **state: Any) -> None:
        """Change what the operator says of the rollout."""
        agent = self.agent(name)
        rollout = agent.setdefault("status", {}).setdefault("rollout", {})
        rollout |= state
        agent["status"]["rollout"] = {key: value for key, value in rollout.items() if value is not None}
        self.put(agent)

    @property
    def writes(self) -> list[tuple[str, str, dict[str, str], Any, str]]:
        return [one for one in self.requests if one[0] != "GET"]

    def _tell(self, plural: str, event: dict[str, Any]) -> None:
        event = copy.deepcopy(event)
        for watched, queue in self._streams:
            if watched == plural and self.loop is not None:
                self.loop.call_soon_threadsafe(queue.put_nowait, event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.text()
        body = yaml.safe_load(raw) if raw else None
        content = request.headers.get("Content-Type", "") if raw else ""
        self.requests.append((request.method, request.path, dict(request.query), body, content))
        namespace, plural, name = _parts(request.path)
        if request.method == "GET" and request.query.get("watch"):
            return await self._watch(request, plural)
        if request.method == "GET":
            return self._get(namespace, plural, name, request.query)
        forced = bool(self.refusals) and self.refusals[0].only_unforced and bool(request.query.get("force"))
        if self.refusals and not forced:
            refusal = self.refusals[0]
            if not refusal.only_unforced:
                self.refusals.pop(0)
            details = {"causes": refusal.causes}
            answer = {"kind": "Status", "message": refusal.message, "details": details, "code": refusal.code}
            return web.json_response(answer, status=refusal.code)
        key = (plural, namespace, name)
        if key not in self.objects and "merge" in content:
            return _missing(name)
        patched = merged(self.objects.get(key) or {"metadata": {"uid": "new"}}, body)
        if request.query.get("dryRun"):
            return web.json_response(patched)
        self.put(patched)
        if self.changed:
            self.changed(copy.deepcopy(patched))
        return web.json_response(patched)

    def _get(self, namespace: str, plural: str, name: str, query: Any) -> web.Response:
        if name:
            found = self.objects.get((plural, namespace, name))
            return web.json_response(found) if found else _missing(name)
        chosen = [
            one
            for (kind, where, called), one in self.objects.items()
            if kind == plural and namespace in ("", where) and _selected(one, called, query)
        ]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": chosen})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.breaks:
            self.breaks -= 1
            assert request.transport is not None
            request.transport.abort()
            return response
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._streams.append((plural, queue))
        while True:
            event = await queue.get()
            if event is None:
                return response
            with contextlib.suppress(ConnectionResetError):  # the client has gone meanwhile
                await response.write(json.dumps(event).encode() + b"\n")


def _parts(path: str) -> tuple[str, str, str]:
    rest = path.removeprefix(AGENTS).removeprefix(APPS).strip("/").split("/")
    namespace = rest.pop(1) if rest[0] == "namespaces" else ""
    rest = rest[1:] if namespace else rest
    return namespace, rest[0], rest[1] if len(rest) > 1 else ""


def _selected(one: dict[str, Any], name: str, query: Any) -> bool:
    label, _, value = query.get("labelSelector", "").partition("=")
    labels = one["metadata"].get("labels") or {}
    wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return (not wanted or wanted == name) and (not label or (label in labels and value in ("", labels[label])))


def _missing(name: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": f'"{name}" not found', "code": 404}, status=404)


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """The cluster that kubectl, and with it every command, reaches."""
    api = FakeApi()
    ready = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        socket, calls, kubectl = Path(folder) / "s", Path(folder) / "calls", Path(folder) / "kubectl"
        kubectl.write_text(KUBECTL.format(socket=socket, calls=calls))
        kubectl.chmod(0o755)
        api.calls = calls
        monkeypatch.setenv("PATH", folder, prepend=":")
        stop = asyncio.Event()

        async def serve() -> None:
            api.loop = asyncio.get_running_loop()
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", api.handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.UnixSite(runner, str(socket)).start()
            ready.set()
            await stop.wait()
            for _, queue in api._streams:
                queue.put_nowait(None)
            await runner.cleanup()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        yield api
        assert api.loop is not None
        api.loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def supportfleet(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command; its exit code and what it said."""

    def run(*arguments: str) -> Said:
        code = 0
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Said(code, "\n".join(line.rstrip() for line in out.splitlines()), err)

    return run


NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


@dataclass
class Fleet:
    """Makes the objects of agents as the API server and the operator would leave them."""

    api: FakeApi

    def agent(self, name: str = "desk", *, state: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        """An agent whose first revision serves, unless ``state`` says otherwise; spec as with defaults."""
        whole = {**self.spec(), **spec}
        status = {
            "observedGeneration": 1,
            "rollout": {"phase": "Idle", "reason": "Promoted", "stableRevision": "r1111111", **(state or {})},
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Available", "message": "3 pods"},
                {"type": "Progressing", "status": "False", "reason": "Promoted", "message": "it is over"},
            ],
        }
        meta = {"name": name, "namespace": "shop", "generation": 1}
        head = {"apiVersion": "supportfleet.dev/v1alpha1", "kind": "SupportAgent"}
        return self.api.put({**head, "metadata": meta, "spec": whole, "status": status})

    def spec(self, image: str = "agent:1") -> dict[str, Any]:
        return {
            "replicas": 3,
            "suspend": False,
            "template": {"image": image, "imagePullPolicy": "IfNotPresent", "port": 8080},
            "config": {},
            "llm": {"provider": "Auto", "timeoutSeconds": 20, "maxTokens": 1024},
            "database": {"secretRef": {"name": "db", "key": "DATABASE_URL"}},
            "model": {
                "uri": "s3://models/intent",
                "version": "1",
                "digest": "sha256:" + "11" * 32,
                "cache": {"type": "EmptyDir", "size": "1Gi"},
                "reload": "Rollout",
            },
            "rollout": {
                "strategy": "Canary",
                "steps": [{"setWeight": 10}, {"pause": {"durationSeconds": 300}}, {"setWeight": 50}, {"pause": {}}],
                "analysis": {
                    "intervalSeconds": 30,
                    "failureLimit": 2,
                    "metrics": [{"name": "errorRate", "max": 0.02}, {"name": "latencyP99", "max": 2}],
                },
                "paused": False,
            },
            "traffic": {"provider": "Istio"},
        }

    def revision(
        self, revision: str, number: int, spec: dict[str, Any], *, pods: tuple[int, int] = (0, 0), name: str = "desk"
    ) -> None:
        """A revision's ControllerRevision, and its Deployment where it has pods."""
        parts = {key: spec[key] for key in ("template", "llm", "database", "model") if key in spec}
        labels = {"supportfleet.dev/agent": name, "supportfleet.dev/revision": revision}
        made = (NOW - dt.timedelta(days=10 - number)).isoformat().replace("+00:00", "Z")
        meta = {
            "name": f"{name}-{revision}",
            "labels": labels,
            "creationTimestamp": made,
            "ownerReferences": [{"uid": f"uid-supportagents-shop-{name}"}],
        }
        data = {"spec": parts, "agent_config.json": json.dumps(spec.get("config", {}))}
        self.api.put({"kind": "ControllerRevision", "metadata": meta, "data": data, "revision": number})
        if pods != (0, 0):
            ready, desired = pods
            status = {"readyReplicas": ready}
            self.api.put({"kind": "Deployment", "metadata": meta, "spec": {"replicas": desired}, "status": status})

    def canary(self) -> None:
        """The agent ``desk`` in the middle of a rollout of agent:2, at a pause."""
        state = {
            "phase": "Paused",
            "reason": "PauseStep",
            "message": "paused at 10 % of the traffic for 300 s",
            "canaryRevision": "r2222222",
            "previousRevision": "r0000000",
            "currentStep": 1,
            "currentWeight": 10,
            "stepStartedAt": "2026-11-21T11:58:00Z",
            "lastAnalysisAt": "2026-11-21T11:59:48Z",
            "analysisFailures": 1,
            "lastAnalysis": [
                {"metric": "errorRate", "verdict": "Pass", "value": 0.0123, "stable": 0.01, "samples": 240},
                {"metric": "latencyP99", "verdict": "Inconclusive", "samples": 3},
            ],
        }
        agent = self.agent(state=state, **self.spec("agent:2"))
        message = "paused at 10 % of the traffic for 300 s"
        scaling = "no metrics from resource metrics API"
        agent["status"]["conditions"] = [
            {"type": "Ready", "status": "False", "reason": "PauseStep", "message": message},
            {"type": "Reconciling", "status": "True", "reason": "PauseStep", "message": message},
            {"type": "Progressing", "status": "False", "reason": "PauseStep", "message": message},
            {"type": "TrafficRouted", "status": "True", "reason": "Routed", "message": "by weights"},
            {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": scaling},
        ]
        self.api.put(agent)
        self.revision("r0000000", 1, self.spec("agent:0"))
        self.revision("r1111111", 2, self.spec("agent:1"), pods=(3, 3))
        self.revision("r2222222", 3, self.spec("agent:2"), pods=(1, 1))


@pytest.fixture
def fleet(fake_api: FakeApi) -> Fleet:
    """Agents for the fake cluster."""
    return Fleet(fake_api)
