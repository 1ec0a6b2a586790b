"""Reconcile one agent: the whole of it, whatever the cause."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supportfleet_operator.cluster.cache import Cache
from supportfleet_operator.cluster.client import METADATA_ONLY, Client
from supportfleet_operator.cluster.recorder import News, Recorder
from supportfleet_operator.cluster.resources import SUPPORT_AGENTS, AgentKey
from supportfleet_operator.cluster.scraper import Scraper
from supportfleet_operator.errors import Conflict, NotFound
from supportfleet_operator.reconcile import rollouts
from supportfleet_operator.reconcile.agents import Agent, Agents
from supportfleet_operator.reconcile.apply import Applied, Applier
from supportfleet_operator.reconcile.observe import Observed, observe
from supportfleet_operator.reconcile.plan import Plan, Write, plan
from supportfleet_operator.reconcile.policies import first_finding
from supportfleet_operator.reconcile.policies.base import Finding, View, was_ready
from supportfleet_operator.reconcile.references import Missing, ReferenceReader
from supportfleet_operator.reconcile.status import intent_of, is_current, news, status_of

LOG: Final = logging.getLogger(__name__)

RESYNC: Final = 600.0
"""An agent is looked at this often even if nothing happens: it costs no request when nothing is wrong."""


LOST_RACE: Final = 0.2
"""The agent changed under a decision: its newer state is on its way."""
SOONEST: Final = 0.05


@dataclass(frozen=True, slots=True)
class Reconciler:
    """What reconciling needs."""

    agents: Agents
    cache: Cache
    client: Client
    applier: Applier
    references: ReferenceReader
    recorder: Recorder
    scraper: Scraper
    served: Callable[[], frozenset[str]]
    """Optional kinds that the cluster has now."""
    clock: Callable[[], dt.datetime]

    async def reconcile(self, key: AgentKey) -> float | None:
        """Bring one agent to its spec; returns after how many seconds to look again, None for an agent that is gone."""
        agent = self.agents.get(key)
        if agent is None or agent.is_leaving:
            return None  # owner references do the rest
        now = self.clock()
        observed = self._observe(key, agent, await self._missing(agent))
        observed = await self._measure(observed, now)
        wanted = plan(observed, now)
        if not wanted.is_empty and not await self._still_exists(key, agent):
            return None
        kept: list[Write] = []
        if wanted.moves(observed):
            kept = await self.applier.keep_history(wanted, observed, now)
            if not await self._intend(key, agent, wanted):
                return LOST_RACE
            agent = self.agents.get(key) or agent
        applied = await self.applier.carry_out(wanted, observed, now, kept)
        view = self._view(self._observe(key, agent, observed.missing), wanted, applied, now)
        finding = first_finding(view)
        self._tell(agent, applied)
        await self._report(key, agent, view, wanted, finding)
        return _next_look(finding, wanted)

    def _observe(self, key: AgentKey, agent: Agent, missing: tuple[Missing, ...]) -> Observed:
        return observe(
            agent.raw,
            self.cache.of_agent(key),
            desired=agent.desired,
            problems=agent.problems,
            missing=missing,
            settlements=self.applier.settlements,
            served=self.served(),
        )

    def _view(self, observed: Observed, wanted: Plan, applied: Applied, now: dt.datetime) -> View:
        """What there is after the round, for the policies that explain it."""
        gate = None
        if observed.desired is not None and wanted.rendered is not None:
            gate = rollouts.gate(observed, wanted.rendered, observed.desired.revision, now)
        return View(observed, now, tuple(applied.problems), gate, wanted.decision, wanted.rendered)

    async def _measure(self, observed: Observed, now: dt.datetime) -> Observed:
        """The same with the pods' figures, when a measurement is due."""
        targets = rollouts.to_measure(observed, now)
        if targets is None:
            return observed
        said = await self.scraper.scrape({pod: target for pods in targets.values() for pod, target in pods.items()})
        figures = {name: {pod: said[pod] for pod in pods if pod in said} for name, pods in targets.items()}
        return dataclasses.replace(observed, figures=figures)

    async def _intend(self, key: AgentKey, agent: Agent, wanted: Plan) -> bool:
        """Write down what the rollout does next, before it is done; False where the agent has changed meanwhile.

        The decision was made on one state of the agent, so it is written to that state only: what somebody changed
        since, or another leader decided, is looked at first.
        """
        assert wanted.decision is not None  # noqa: S101 - only a decision moves
        manifest = _status_manifest(key, agent, intent_of(agent.raw, wanted.decision))
        manifest["metadata"]["resourceVersion"] = agent.raw["metadata"]["resourceVersion"]
        try:
            answer = await self.client.apply(manifest, force=True, subresource="status", urgent=True)
        except (NotFound, Conflict):
            return False
        self.agents.put(answer)
        state = wanted.decision.state
        told = {"phase": state.phase, "stable": state.stable, "canary": state.canary, "weight": state.weight}
        LOG.info("rollout", extra={"agent": str(key), **told, "step": state.step, "reason": state.reason})
        for one in wanted.decision.news:
            self.recorder.post(agent.raw, News(one.type, one.reason, one.note, "Rollout"))
        return True

    async def _missing(self, agent: Agent) -> tuple[Missing, ...]:
        """What the spec refers to in vain; an agent that runs as its spec says has it all."""
        if agent.desired is None or was_ready(agent.raw) or agent.desired.agent.spec.suspend:
            return ()
        return await self.references.missing(agent.desired.agent)

    async def _still_exists(self, key: AgentKey, agent: Agent) -> bool:
        """Whether the agent is still there, before anything is written for it.

        A deletion that the watch missed would otherwise have children made, collected and made again, for ever.
        """
        live = await self.client.get(SUPPORT_AGENTS, key.namespace, key.name, METADATA_ONLY)
        if live is not None and live["metadata"]["uid"] == agent.uid:
            return not live["metadata"].get("deletionTimestamp")
        self.agents.remove(key, agent.uid)
        return False

    async def _report(self, key: AgentKey, agent: Agent, view: View, wanted: Plan, finding: Finding | None) -> None:
        """Write the status if it differs, and post what is new in it."""
        status = status_of(view, wanted.gate, finding)
        if is_current(agent.raw, status):
            return
        try:
            answer = await self.client.apply(_status_manifest(key, agent, status), force=True, subresource="status")
        except (NotFound, Conflict):
            return  # gone, or another of the same name: the watch says so
        self.agents.put(answer)
        for one in news(agent.raw, status):
            self.recorder.post(agent.raw, one)
        LOG.info("status", extra={"agent": str(key), "phase": status["phase"], "reason": finding and finding.reason})

    def _tell(self, agent: Agent, applied: Applied) -> None:
        """Say what was done to children."""
        for write in applied.written:
            how = "created" if write.live is None else "put back" if write.tools else "updated"
            fields = [difference.path for difference in write.differs]
            LOG.info(
                "wrote",
                extra={"agent": agent.raw["metadata"]["name"], "child": str(write.ref), "how": how, "fields": fields},
            )
            if write.tools:
                note = f"{write.ref} was changed with {', '.join(write.tools)} and is as the spec says again"
                self.recorder.post(agent.raw, News("Normal", "Restored", note, "Restore"))
        if made := [str(write.ref) for write in applied.written if write.live is None]:
            self.recorder.post(agent.raw, News("Normal", "Created", f"created {', '.join(made)}", "Create"))
        for removal in applied.removed:
            LOG.info(
                "removed", extra={"agent": agent.raw["metadata"]["name"], "child": str(removal.ref), "why": removal.why}
            )
            self.recorder.post(agent.raw, News("Normal", "Deleted", f"deleted {removal.ref}: {removal.why}", "Delete"))


def _status_manifest(key: AgentKey, agent: Agent, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": agent.raw["apiVersion"],
        "kind": agent.raw["kind"],
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": agent.uid},
        "status": status,
    }


def _next_look(finding: Finding | None, wanted: Plan) -> float:
    """The soonest of what anything waits for."""
    waits = [RESYNC]
    if finding is not None and finding.recheck is not None:
        waits.append(finding.recheck)
    if wanted.decision is not None and wanted.decision.requeue_after is not None:
        waits.append(wanted.decision.requeue_after)
    return max(SOONEST, min(waits))
