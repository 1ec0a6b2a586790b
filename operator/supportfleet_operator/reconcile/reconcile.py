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
from supportfleet_operator.cluster.resources import SUPPORT_AGENTS, AgentKey, Manifest
from supportfleet_operator.errors import Conflict, NotFound
from supportfleet_operator.reconcile import channels, hot, measuring
from supportfleet_operator.reconcile.agents import Agent, Agents
from supportfleet_operator.reconcile.apply import Applied, Applier
from supportfleet_operator.reconcile.observe import Observed, observe
from supportfleet_operator.reconcile.plan import Plan, Write, model_gate, plan
from supportfleet_operator.reconcile.policies import first_finding
from supportfleet_operator.reconcile.policies.base import Finding, View, was_ready
from supportfleet_operator.reconcile.policies.model_sync import Gate
from supportfleet_operator.reconcile.probes import Prober
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
    prober: Prober
    served: Callable[[], frozenset[str]]
    """Optional kinds that the cluster has now."""
    clock: Callable[[], dt.datetime]

    async def reconcile(self, key: AgentKey) -> float | None:
        """Bring one agent to its spec; returns after how many seconds to look again, None for an agent that is gone."""
        agent = self.agents.get(key)
        if agent is None or agent.is_leaving:
            self.prober.forget(key)
            return None  # owner references do the rest
        now = self.clock()
        observed = self._measured(key, self._observe(key, agent), now)
        wanted = plan(observed, now)
        moves = wanted.moves(observed)
        acts = moves or not wanted.is_empty
        if acts and (again := await self._outdated(key, agent)) is not None:
            return again or None
        kept: list[Write] = []
        if moves:
            kept = await self.applier.keep_history(wanted, observed, now)
            if not await self._intend(key, agent, wanted):
                return LOST_RACE
            agent = self.agents.get(key) or agent
        applied = await self.applier.carry_out(wanted, observed, now, kept)
        after = dataclasses.replace(self._observe(key, agent, await self._missing(agent)), loading=observed.loading)
        gate = model_gate(after, wanted.rendered, wanted.following, now)
        problems = tuple(applied.problems)
        view = View(after, now, problems, gate, wanted.decision, wanted.rendered, wanted.following)
        finding = first_finding(view)
        self._tell(agent, applied)
        if not await self._report(key, agent, view, gate, finding):
            return await self._outdated(key, agent) or LOST_RACE
        return _next_look(view, finding)

    def _observe(self, key: AgentKey, agent: Agent, missing: tuple[Missing, ...] = ()) -> Observed:
        return observe(
            agent.raw,
            self.cache.of_agent(key),
            desired=agent.desired,
            problems=agent.problems,
            missing=missing,
            settlements=self.applier.settlements,
            served=self.served(),
        )

    def _measured(self, key: AgentKey, observed: Observed, now: dt.datetime) -> Observed:
        """The same with what was found outside of the API server; what is not known yet is asked for."""
        figures = self.prober.look(key, "analysis", measuring.probe(observed, now))
        loading = self.prober.look(key, "model", hot.probe(observed, now))
        if figures is not None:
            observed = dataclasses.replace(observed, figures=figures.figures, answers=figures.answers)
        return observed if loading is None else dataclasses.replace(observed, loading=loading.figures)

    async def _intend(self, key: AgentKey, agent: Agent, wanted: Plan) -> bool:
        """Write down what the rollout does next, before it is done; False where the agent has changed meanwhile.

        The decision was made on one state of the agent, so it is written to that state only: what somebody changed
        since, or another leader decided, is looked at first.
        """
        assert wanted.decision is not None  # noqa: S101 - only a decision moves
        intent = intent_of(agent.raw, wanted.decision)
        try:
            answer = await self._write_status(key, agent, intent, urgent=self.agents.is_urgent(key))
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

    async def _outdated(self, key: AgentKey, agent: Agent) -> float | None:
        """After how many seconds to look at the newer state that the agent has; 0 where it is gone, None in most cases.

        A deletion that the watch missed would have children made, collected and made again, for ever. And what was
        planned on a status of before, such as when another leader has decided since, would bring back its weights.
        """
        urgent = self.agents.is_urgent(key)
        live = await self.client.get(SUPPORT_AGENTS, key.namespace, key.name, METADATA_ONLY, urgent=urgent)
        if live is None or live["metadata"]["uid"] != agent.uid:
            self.agents.remove(key, agent.uid)
            return 0.0
        if live["metadata"].get("deletionTimestamp"):
            return 0.0
        if live["metadata"]["resourceVersion"] == agent.raw["metadata"]["resourceVersion"]:
            return None
        newest = await self.client.get(SUPPORT_AGENTS, key.namespace, key.name, urgent=urgent)
        if newest is not None:
            self.agents.put(newest)
        return LOST_RACE

    async def _report(self, key: AgentKey, agent: Agent, view: View, gate: Gate, finding: Finding | None) -> bool:
        """Write the status if it differs, and post what is new in it; False where the agent has changed meanwhile.

        Like the rollout's state it is written to that state of the agent only that it is about: a process that slept
        through the loss of its lease must not bring an old one back.
        """
        status = status_of(view, gate, finding)
        if is_current(agent.raw, status):
            return True
        try:
            answer = await self._write_status(key, agent, status, urgent=False)
        except (NotFound, Conflict):
            return False
        self.agents.put(answer)
        for one in news(agent.raw, status):
            self.recorder.post(agent.raw, one)
        LOG.info("status", extra={"agent": str(key), "phase": status["phase"], "reason": finding and finding.reason})
        return True

    async def _write_status(self, key: AgentKey, agent: Agent, status: Mapping[str, Any], *, urgent: bool) -> Manifest:
        metadata = {"name": key.name, "namespace": key.namespace, "uid": agent.uid}
        manifest = {
            "apiVersion": agent.raw["apiVersion"],
            "kind": agent.raw["kind"],
            "metadata": metadata | {"resourceVersion": agent.raw["metadata"]["resourceVersion"]},
            "status": status,
        }
        return await self.client.apply(manifest, force=True, subresource="status", urgent=urgent)

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
        created = [write.ref for write in applied.written if write.live is None]
        if made := [str(ref) for ref in created if not channels.is_look_ref(ref)]:
            self.recorder.post(agent.raw, News("Normal", "Created", f"created {', '.join(made)}", "Create"))
        for removal in applied.removed:
            LOG.info(
                "removed", extra={"agent": agent.raw["metadata"]["name"], "child": str(removal.ref), "why": removal.why}
            )
            if not channels.is_look_ref(removal.ref):
                note = f"deleted {removal.ref}: {removal.why}"
                self.recorder.post(agent.raw, News("Normal", "Deleted", note, "Delete"))


def _next_look(view: View, finding: Finding | None) -> float:
    """The soonest of what anything waits for."""
    waits = [RESYNC]
    if finding is not None and finding.recheck is not None:
        waits.append(finding.recheck)
    if view.decision is not None and view.decision.requeue_after is not None:
        waits.append(view.decision.requeue_after)
    if view.following is not None and view.following.again is not None:
        waits.append(view.following.again)
    if view.following is not None and channels.is_news(view.observed, view.following):
        waits.append(SOONEST)
    return max(SOONEST, min(waits))
