"""Looking at what is outside of the API server, in the background: pods' figures, and Prometheus.

A pod that hangs, or a Prometheus that is away, must cost its own agent's measurement and nothing else. So no worker
waits for one: a probe is started, its findings wake the agent, and the round that follows decides with them. What a
probe is ``about`` says which question it answers: findings for a question that nobody asks any more are dropped.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from supportfleet_operator.api import Prometheus as PrometheusSpec
from supportfleet_operator.cluster.client import Client
from supportfleet_operator.cluster.prometheus import Prometheus, Reply, Server
from supportfleet_operator.cluster.resources import SECRETS, AgentKey, Manifest
from supportfleet_operator.cluster.scraper import Scraper, Target
from supportfleet_operator.errors import ClusterError
from supportfleet_operator.rollout import Answer, Query, answered, unanswered

LOG: Final = logging.getLogger(__name__)

Figures = Mapping[str, Mapping[str, str]]
"""Texts in Prometheus' format, by revision and pod."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask."""

    about: Hashable
    every: float
    """Seconds after which findings are old, so that it is asked again while they are still wanted."""
    pods: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    """Pods to ask for their figures, by revision."""
    queries: tuple[Query, ...] = ()
    prometheus: PrometheusSpec | None = None
    """Whom to ask them."""


class Findings(NamedTuple):
    """What came of it."""

    about: Hashable
    at: float
    """When it was there, by the loop's clock."""
    figures: Figures
    answers: Mapping[Query, Answer]


def targets(pods: Sequence[Manifest], port: int, most: int) -> dict[str, Target]:
    """Where pods serve their figures, the oldest first: those that are asked stay the same as far as possible."""
    placed = [pod for pod in pods if pod["status"].get("podIP")]
    placed.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))
    return {pod["metadata"]["name"]: Target(pod["status"]["podIP"], port) for pod in placed[:most]}


class _Slot(NamedTuple):
    """What there is one probe of at a time."""

    agent: AgentKey
    purpose: str


class Prober:
    """Runs probes, at most one of each purpose for each agent."""

    def __init__(
        self, client: Client, scraper: Scraper, prometheus: Prometheus, wake: Callable[[AgentKey], None]
    ) -> None:
        self._client = client
        self._scraper = scraper
        self._prometheus = prometheus
        self._wake = wake
        self._running: dict[_Slot, tuple[Hashable, asyncio.Task[None]]] = {}
        self._found: dict[_Slot, Findings] = {}

    def look(self, agent: AgentKey, purpose: str, probe: Probe | None) -> Findings | None:
        """The newest findings about what the probe is about; None until there are any, which wakes the agent."""
        slot = _Slot(agent, purpose)
        if probe is None:
            self._drop(slot)
            return None
        if slot in self._running and self._running[slot][0] != probe.about:
            self._drop(slot)
        found = self._found.get(slot)
        if found is not None and found.about != probe.about:
            del self._found[slot]
            found = None
        is_old = found is None or asyncio.get_running_loop().time() - found.at >= probe.every
        if is_old and slot not in self._running:
            task = asyncio.create_task(self._run(slot, probe), name=f"probe {purpose} of {agent}")
            self._running[slot] = (probe.about, task)
        return found

    def forget(self, agent: AgentKey) -> None:
        """The agent is gone."""
        for slot in {slot for slot in (*self._running, *self._found) if slot.agent == agent}:
            self._drop(slot)

    async def stop(self) -> None:
        """End all that is under way."""
        tasks = [task for _, task in self._running.values()]
        for slot in [*self._running]:
            self._drop(slot)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, slot: _Slot) -> None:
        self._found.pop(slot, None)
        running = self._running.pop(slot, None)
        if running is not None:
            running[1].cancel()

    async def _run(self, slot: _Slot, probe: Probe) -> None:
        figures: Figures = {}
        answers: Mapping[Query, Answer] = {}
        try:
            figures, answers = await asyncio.gather(self._figures(probe), self._answers(slot.agent, probe))
        except Exception:
            # The edge of one probe: nobody awaits it, so a bug must show here, and the agent decides without figures.
            LOG.exception("probe failed", extra={"agent": str(slot.agent), "purpose": slot.purpose})
        del self._running[slot]
        self._found[slot] = Findings(probe.about, asyncio.get_running_loop().time(), figures, answers)
        self._wake(slot.agent)

    async def _figures(self, probe: Probe) -> Figures:
        """Pods' texts; names of pods are unique in a namespace, whatever their revision."""
        targets = {pod: target for pods in probe.pods.values() for pod, target in pods.items()}
        said = await self._scraper.scrape(targets)
        return {name: {pod: said[pod] for pod in pods if pod in said} for name, pods in probe.pods.items()}

    async def _answers(self, agent: AgentKey, probe: Probe) -> Mapping[Query, Answer]:
        wanted = probe.prometheus
        if wanted is None or not probe.queries:
            return {}
        try:
            token = await self._token(agent.namespace, wanted)
        except (ClusterError, _TokenError) as error:
            return dict.fromkeys(probe.queries, unanswered(f"no bearer token for Prometheus: {error}"))
        server = Server(wanted.address, wanted.timeout_seconds, token)
        replies = await self._prometheus.ask(server, [query.text for query in probe.queries])
        return {query: _answer(replies[query.text]) for query in probe.queries}

    async def _token(self, namespace: str, wanted: PrometheusSpec) -> str | None:
        """The token, read anew each time, so that another one holds at once."""
        reference = wanted.bearer_token_secret_ref
        if reference is None:
            return None
        secret = await self._client.get(SECRETS, namespace, reference.name, urgent=True)
        value = ((secret or {}).get("data") or {}).get(reference.key)
        if value is None:
            what = f"has no key {reference.key!r}" if secret else "does not exist"
            raise _TokenError(f"Secret {reference.name!r} {what}")
        try:
            return base64.b64decode(value, validate=True).decode("ascii").strip()
        except (binascii.Error, UnicodeDecodeError):
            raise _TokenError(f"key {reference.key!r} of Secret {reference.name!r} is no token") from None


class _TokenError(Exception):
    """The Secret cannot give a token; the text never holds any of it."""


def _answer(reply: Reply) -> Answer:
    return unanswered(reply.why) if reply.body is None else answered(reply.body)
