"""What belongs to agents, read once or kept up to date: the agents, their Deployments, and their ControllerRevisions.

Each kind is listed and then watched from there on. A watch that ends is begun anew, and one that breaks is too, a few
times in a row and a little later each time; whoever waits then gets the error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from supportfleet.errors import SupportfleetError
from supportfleet.rollouts.api import AGENTS, APPS, GROUP, NOT_FOUND, Api, ApiError, Object
from supportfleet.rollouts.revisions import LAYERS

AGENT_LABEL: Final = f"{GROUP}/agent"
REVISION_LABEL: Final = f"{GROUP}/revision"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
GONE: Final = 410
TOO_MANY: Final = 429
TRIES: Final = 6
"""How often in a row a watch may fail before it is given up."""
FIRST_DELAY_SECONDS: Final = 0.5


class NoAgentError(SupportfleetError):
    """There is no agent of this name."""


@dataclass(frozen=True)
class Scope:
    """Which agents are meant: those of a namespace, or of all (None); one of them, or all (None)."""

    namespace: str | None
    name: str | None = None

    def path(self, group: str, plural: str) -> str:
        """Where a kind is listed."""
        return f"{group}/namespaces/{self.namespace}/{plural}" if self.namespace else f"{group}/{plural}"

    @property
    def agent(self) -> str:
        """Where the one agent is."""
        return f"{self.path(AGENTS, 'supportagents')}/{self.name}"

    @property
    def kinds(self) -> dict[str, tuple[str, dict[str, str]]]:
        """What is read: the path and the selector, by kind."""
        label = {"labelSelector": f"{AGENT_LABEL}={self.name}" if self.name else AGENT_LABEL}
        chosen = {"fieldSelector": f"metadata.name={self.name}"} if self.name else {}
        return {
            "agents": (self.path(AGENTS, "supportagents"), chosen),
            "deployments": (self.path(APPS, "deployments"), label),
            "revisions": (self.path(APPS, "controllerrevisions"), label),
        }


@dataclass(frozen=True)
class Facts:
    """One agent as the cluster has it."""

    agent: Object
    deployments: dict[str, Object] = field(default_factory=dict)
    """Those that customers reach, by revision."""
    revisions: dict[str, Object] = field(default_factory=dict)
    """ControllerRevisions by revision, oldest first."""
    layers: dict[str, dict[str, Object]] = field(default_factory=dict)
    """Deployments behind those, by layer and revision."""


Listed = Mapping[str, Mapping[str, Object]]
"""By kind and uid."""


async def agent_of(api: Api, scope: Scope) -> Object:
    """The agent.

    Raises:
        NoAgentError: There is none.
    """
    try:
        return await api.get(scope.agent)
    except ApiError as error:
        raise _no_agent(scope, error) from error


async def facts_of(api: Api, scope: Scope) -> list[Facts]:
    """Every agent that is meant, with what belongs to it.

    Raises:
        NoAgentError: One is meant by name, and there is none.
    """
    found = await asyncio.gather(*(_list(api, scope, kind) for kind in scope.kinds))
    return gathered(scope, {kind: items for kind, (items, _) in zip(scope.kinds, found, strict=True)})


async def fact_of(api: Api, scope: Scope) -> Facts:
    """The one agent that is meant, with what belongs to it.

    Raises:
        NoAgentError: There is none.
    """
    (facts,) = await facts_of(api, scope)
    return facts


def gathered(scope: Scope, listed: Listed) -> list[Facts]:
    """The same from what was listed, in the order of namespaces and names.

    Raises:
        NoAgentError: One is meant by name, and there is none.
    """
    agents = sorted(listed["agents"].values(), key=_key)
    if scope.name and not agents:
        raise _no_agent(scope, None)
    return [_facts(agent, listed) for agent in agents]


def _facts(agent: Object, listed: Listed) -> Facts:
    """What belongs to one agent."""
    layers = {name: _of(agent, listed["deployments"], name.__eq__) for name in LAYERS}
    return Facts(
        agent,
        deployments=_of(agent, listed["deployments"], lambda one: one not in LAYERS),
        layers={name: found for name, found in layers.items() if found},
        revisions=_of(agent, listed["revisions"]),
    )


def _key(agent: Object) -> tuple[str, str]:
    return agent["metadata"].get("namespace", ""), agent["metadata"]["name"]


def _of(
    agent: Object, objects: Mapping[str, Object], chosen: Callable[[str], bool] = lambda _: True
) -> dict[str, Object]:
    """Those of an agent, and of chosen components, by revision, oldest first.

    One whose owner is another agent of before is not among them.
    """
    uid = agent["metadata"].get("uid")
    own = [
        one
        for one in objects.values()
        if any(owner.get("uid") == uid for owner in one["metadata"].get("ownerReferences") or ())
        and REVISION_LABEL in (one["metadata"].get("labels") or {})
        and chosen(one["metadata"]["labels"].get(COMPONENT_LABEL, ""))
    ]
    own.sort(key=lambda one: (one.get("revision", 0), one["metadata"].get("creationTimestamp") or ""))
    return {one["metadata"]["labels"][REVISION_LABEL]: one for one in own}


def _no_agent(scope: Scope, error: ApiError | None) -> SupportfleetError:
    if error is not None and error.code != NOT_FOUND:
        return error
    where = f" in namespace {scope.namespace!r}" if scope.namespace else ""
    return NoAgentError(
        f"there is no agent {scope.name!r}{where}", remedy="See 'kubectl get supportagents -A', or name one with -n"
    )


async def _list(api: Api, scope: Scope, kind: str) -> tuple[dict[str, Object], str]:
    path, parameters = scope.kinds[kind]
    try:
        found = await api.get(path, **parameters)
    except ApiError as error:
        if error.code == NOT_FOUND and kind == "agents":
            raise SupportfleetError(
                "this cluster has no SupportAgents", remedy="Install the operator: kubectl apply -k manifests/default"
            ) from error
        raise
    items = {one["metadata"]["uid"]: one for one in found.get("items") or ()}
    return items, str(found["metadata"].get("resourceVersion", ""))


class Watched:
    """Agents that are kept up to date."""

    def __init__(self, api: Api, scope: Scope, first_delay: float = FIRST_DELAY_SECONDS) -> None:
        self._api, self._scope, self._first_delay = api, scope, first_delay
        self._found: dict[str, dict[str, Object]] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [asyncio.create_task(self._keep(kind)) for kind in self._scope.kinds]

    async def stop(self) -> None:
        """End all watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def facts(self) -> list[Facts]:
        """As of now.

        Raises:
            NoAgentError: One is meant by name, and there is none any more.
        """
        return gathered(self._scope, self._found)

    async def changed(self, seconds: float) -> bool:
        """Whether something has changed; waits for it, but not longer than this.

        Raises:
            SupportfleetError: A watch was given up.
        """
        news = asyncio.create_task(self._news.wait())
        try:
            done, _ = await asyncio.wait({news, *self._tasks}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        for task in done - {news}:
            task.result()
        self._news.clear()
        return news in done and len(self._found) == len(self._scope.kinds)

    async def until(self, condition: Callable[[Facts], bool], seconds: float) -> bool:
        """Whether the one agent that is meant came to fulfil a condition within a time.

        Raises:
            SupportfleetError: It is gone, or a watch was given up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0:
            if await self.changed(left) and condition(self.facts[0]):
                return True
        return False

    async def _keep(self, kind: str) -> None:
        """List and watch a kind, again and again; an answer of any kind makes failures before it forgotten."""
        failures = 0
        while True:
            try:
                items, version = await _list(self._api, self._scope, kind)
                self._found[kind] = items
                self._news.set()
                async for event in self._api.watch(self._scope.kinds[kind][0], version, **self._scope.kinds[kind][1]):
                    failures = 0
                    self._take(kind, event)
            except ApiError as error:
                failures += error.code != GONE
                if failures >= TRIES or _is_final(error.code):
                    raise
            await asyncio.sleep(self._first_delay * 2**failures)

    def _take(self, kind: str, event: Object) -> None:
        if event["type"] == "BOOKMARK":
            return
        uid = event["object"]["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._found[kind].pop(uid, None)
        else:
            self._found[kind][uid] = event["object"]
        self._news.set()


def _is_final(code: int) -> bool:
    """Whether the answer will be the same the next time."""
    return 400 <= code < 500 and code not in {GONE, TOO_MANY}  # noqa: PLR2004 - HTTP's own boundaries


@contextlib.asynccontextmanager
async def watching(api: Api, scope: Scope) -> AsyncIterator[Watched]:
    """Keep agents up to date for as long as the block lasts."""
    watched = Watched(api, scope)
    watched.start()
    try:
        yield watched
    finally:
        await watched.stop()
