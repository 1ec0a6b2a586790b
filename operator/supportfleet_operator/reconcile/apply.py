"""Carry out a plan: server-side apply under one field manager, one child after the other.

A child that cannot be written becomes a problem of that child, and the others are written all the same; but no pod goes
while what routes requests could not be put as decided, because requests may still come to it. What the server cannot do
at the moment (``Busy``, ``Unreachable``) goes up to the queue, which owns the retry.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from supportfleet_operator.cluster import ownership
from supportfleet_operator.cluster.cache import Cache, is_owned_by
from supportfleet_operator.cluster.client import FIELD_MANAGER, METADATA_ONLY, Client
from supportfleet_operator.cluster.resources import (
    AUTOSCALERS,
    BY_KIND,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    SERVICES,
    Manifest,
    ObjectRef,
)
from supportfleet_operator.errors import Cause, Conflict, Forbidden, Invalid
from supportfleet_operator.reconcile.desired import stamp
from supportfleet_operator.reconcile.drift import differences
from supportfleet_operator.reconcile.fieldpaths import remove
from supportfleet_operator.reconcile.observe import Observed
from supportfleet_operator.reconcile.plan import Plan, Removal, Write
from supportfleet_operator.reconcile.policies import child_problem, traffic
from supportfleet_operator.reconcile.policies.base import ChildProblem
from supportfleet_operator.reconcile.settlements import REMEMBERED, Holder, Settlement, fingerprint

HANDOVER: Final = f"{FIELD_MANAGER}-handover"
"""Holds ``spec.replicas`` between the moment we let go of it and the moment the autoscaler first sets it."""
SCALER: Final = "kube-controller-manager"
"""The manager's name of every HorizontalPodAutoscaler."""

TAKEN_LAST: Final = frozenset({DEPLOYMENTS.kind, SERVICES.kind})
"""What requests may still come to while routes are not as decided."""
REPLICAS: Final = {DEPLOYMENTS.kind: ("replicas",), AUTOSCALERS.kind: ("minReplicas", "maxReplicas")}
"""Fields that take pods when they are lowered."""

_MANAGER: Final = re.compile(r'conflict with "([^"]+)"')
_TERMINATING: Final = "NamespaceTerminating"


@dataclass(slots=True)
class Applied:
    """What a round did."""

    written: list[Write] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    problems: list[ChildProblem] = field(default_factory=list)

    def wrote(self, kind: str) -> bool:
        """Whether a child of this kind was written."""
        return any(write.ref.kind == kind for write in self.written)


@dataclass(frozen=True, slots=True)
class Applier:
    """Writes children, and remembers what came of it."""

    client: Client
    cache: Cache
    settlements: dict[str, Settlement]

    async def carry_out(self, plan: Plan, observed: Observed, now: dt.datetime, kept: Sequence[Write] = ()) -> Applied:
        """Do what the plan says, in its order; ``kept`` is what was done of it before."""
        applied = Applied(written=list(kept))
        misrouted = any(traffic.is_traffic(one.ref, observed) for one in child_problem.settled(observed))
        for removal in plan.before:
            await self._remove(removal, applied)
        for write in plan.writes:
            if write in kept or (misrouted and _takes_pods(write)):
                continue
            try:
                problem = await self._write(write, observed, now)
            except Forbidden as error:
                if any(cause.reason == _TERMINATING for cause in error.causes):
                    return applied  # the namespace goes, and everything in it
                problem = _refused(write.ref, "Forbidden", str(error))
            except Invalid as error:
                problem = _refused(write.ref, "Refused", str(error))
            if problem is None:
                applied.written.append(write)
            else:
                applied.problems.append(problem)
                misrouted = misrouted or traffic.is_traffic(write.ref, observed)
        for removal in plan.after:
            if not (misrouted and removal.ref.kind in TAKEN_LAST):
                await self._remove(removal, applied)
        return applied

    async def keep_history(self, plan: Plan, observed: Observed, now: dt.datetime) -> list[Write]:
        """Store the revision that a decision is about, so that it can be rendered whatever becomes of the spec."""
        kept: list[Write] = []
        for write in plan.writes:
            if write.ref.kind == CONTROLLER_REVISIONS.kind and write.live is None:
                with contextlib.suppress(Forbidden, Invalid):  # carrying out the plan meets it again, and reports it
                    if await self._write(write, observed, now) is None:
                        kept.append(write)
        return kept

    async def _remove(self, removal: Removal, applied: Applied) -> None:
        if await self.client.delete(removal.ref, uid=removal.uid):
            applied.removed.append(removal)
        self.settlements.pop(removal.uid, None)

    async def _write(self, write: Write, observed: Observed, now: dt.datetime) -> ChildProblem | None:
        if write.live is None and (problem := await self._stranger(write, observed)):
            return problem
        manifest = write.manifest
        if write.live is None and write.replicas is not None:
            manifest = manifest | {"spec": manifest["spec"] | {"replicas": write.replicas}}
        elif write.replicas is not None:
            await self._hand_over(write)
        if write.live is not None and write.tools:
            await self._absorb(write)
        answer, holders = await self._apply(
            manifest, urgent=write.live is not None and traffic.is_traffic(write.ref, observed)
        )
        self.cache.put_own(answer)
        self._settle(write, answer, holders, now)
        return child_problem.conflict(write.ref, [(one.manager, one.field) for one in holders]) if holders else None

    async def _stranger(self, write: Write, observed: Observed) -> ChildProblem | None:
        """Whether the name is taken. The cache only knows what has our labels, so a look is worth a request."""
        stranger = observed.strangers.get(write.ref) or await self.client.get(
            BY_KIND[write.ref.kind], write.ref.namespace, write.ref.name, METADATA_ONLY
        )
        if stranger is None or is_owned_by(stranger, observed.uid):
            return None
        owner = next((one for one in stranger["metadata"].get("ownerReferences") or () if one.get("controller")), None)
        if owner and (owner["kind"], owner["name"]) == (observed.agent["kind"], observed.agent["metadata"]["name"]):
            message = f"{write.ref} belongs to a SupportAgent of this name that was deleted, and is being removed"
            return ChildProblem(write.ref, "BeingReplaced", message)
        whose = f"controlled by {owner['kind']} {owner['name']!r}" if owner else "not the operator's"
        message = f"{write.ref} exists and is {whose}: it is left alone; delete or rename it, or rename the agent"
        return ChildProblem(write.ref, "NameTaken", message)

    async def _hand_over(self, write: Write) -> None:
        """Let a manager of our own hold the number of pods: what nobody holds falls back to one."""
        metadata = {"name": write.ref.name, "namespace": write.ref.namespace}
        held = {
            "apiVersion": write.manifest["apiVersion"],
            "kind": write.ref.kind,
            "metadata": metadata,
            "spec": {"replicas": write.replicas},
        }
        await self.client.apply(held, manager=HANDOVER, force=True)

    async def _absorb(self, write: Write) -> None:
        """Take over what people set by hand, so that the apply that follows removes it."""
        resource = BY_KIND[write.ref.kind]
        live = await self.client.get(resource, write.ref.namespace, write.ref.name)
        if live is None:
            return
        ours = write.ref.kind != DEPLOYMENTS.kind or "replicas" in write.manifest["spec"]
        fields = ownership.absorb(live["metadata"].get("managedFields") or (), FIELD_MANAGER, replicas_are_ours=ours)
        if fields is None:
            return
        await self.client.json_patch(
            write.ref,
            [
                {"op": "replace", "path": "/metadata/managedFields", "value": fields},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
            ],
        )

    async def _apply(self, manifest: Manifest, *, urgent: bool) -> tuple[Manifest, tuple[Holder, ...]]:
        """Apply, leaving to other managers the fields that they hold."""
        try:
            return await self.client.apply(manifest, urgent=urgent), ()
        except Conflict as error:
            holders = _holders(error.causes)
            if not holders:
                raise  # not about fields: the object is being replaced at this moment
        left = tuple([holder for holder in holders if not await self._may_override(holder, manifest)])
        manifest = copy.deepcopy(manifest)
        for holder in left:
            remove(manifest, holder.field)
        return await self.client.apply(manifest, force=True, urgent=urgent), left

    async def _may_override(self, holder: Holder, manifest: Manifest) -> bool:
        """People's tools and our own hand-over; a number of pods that an autoscaler left behind."""
        if ownership.is_hand_tool(holder.manager) or holder.manager.startswith(FIELD_MANAGER):
            return True
        if holder.manager != SCALER or holder.field != ".spec.replicas":
            return False
        return not await self._is_scaled(manifest)

    async def _is_scaled(self, manifest: Manifest) -> bool:
        """Whether any autoscaler, such as one of KEDA's, still scales the Deployment."""
        metadata = manifest["metadata"]
        async for page in self.client.list_pages(AUTOSCALERS, metadata["namespace"]):
            for scaler in page.items:
                target = scaler["spec"]["scaleTargetRef"]
                if (target["kind"], target["name"]) == (manifest["kind"], metadata["name"]):
                    return True
        return False

    def _settle(self, write: Write, answer: Manifest, holders: tuple[Holder, ...], now: dt.datetime) -> None:
        """Remember what is left different after the write, if anything is."""
        uid, left = answer["metadata"]["uid"], differences(write.manifest, answer)
        if left or holders:
            if len(self.settlements) >= REMEMBERED:
                self.settlements.clear()  # forgetting costs a write each, and nothing else
            self.settlements[uid] = Settlement(stamp(write.manifest), fingerprint(left), holders, now)
        else:
            self.settlements.pop(uid, None)


def _takes_pods(write: Write) -> bool:
    """Whether a write lowers the number of pods that there are."""
    if write.live is None:
        return False
    wanted = write.manifest.get("spec", {})
    held = write.live.get("spec", {})
    for field_ in REPLICAS.get(write.ref.kind, ()):
        if field_ in wanted and int(wanted[field_]) < int(held.get(field_, 1)):
            return True
    return False


def _holders(causes: Iterable[Cause]) -> tuple[Holder, ...]:
    """Who holds which field, from the causes of a conflict."""
    return tuple(
        Holder(found.group(1), cause.field)
        for cause in causes
        if cause.reason == "FieldManagerConflict" and (found := _MANAGER.search(cause.message))
    )


def _refused(ref: ObjectRef, kind: Any, said: str) -> ChildProblem:
    """The API server's own words, after the field of the agent that they are about."""
    field_of_agent = child_problem.blame(said)
    return ChildProblem(ref, kind, f"{field_of_agent}: {said}" if field_of_agent else f"{ref}: {said}")
