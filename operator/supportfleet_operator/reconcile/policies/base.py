"""What policies look at, and what they find."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from supportfleet_operator.api import READY, LayerName
from supportfleet_operator.cluster.resources import Manifest, ObjectRef
from supportfleet_operator.reconcile.desired import Rendered
from supportfleet_operator.reconcile.observe import Observed, revision_of
from supportfleet_operator.rollout import Decision

if TYPE_CHECKING:
    from supportfleet_operator.reconcile.channels import Following
    from supportfleet_operator.reconcile.policies.model_sync import Gate


IDLE: Final = "Idle"
"""The phase of a rollout that is over."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an agent is not Ready: the condition's reason, and a message with the field and the remedy."""

    reason: str
    message: str
    stalled: bool = True
    """kstatus: whether it takes a change from outside. Otherwise the operator or the cluster is still working on it."""
    recheck: float | None = None
    """Seconds after which to look again, where no event may come."""


@dataclass(frozen=True, slots=True)
class ChildProblem:
    """A child that could not be written as rendered."""

    ref: ObjectRef
    kind: Literal["NameTaken", "BeingReplaced", "FieldConflict", "Refused", "Forbidden"]
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything a policy may look at."""

    observed: Observed
    now: dt.datetime
    problems: tuple[ChildProblem, ...] = ()
    """What the writes of this round met."""
    gate: Gate | None = None
    """Where the model of the spec's revision stands."""
    decision: Decision | None = None
    """What the rollout does; None for a spec that is not valid."""
    rendered: Rendered | None = None
    """The children that come of it."""
    following: Following | None = None
    """Where following the spec's channel stands."""

    @property
    def spec(self) -> Any:
        """The parsed spec; policies after ``invalid_spec`` have one."""
        assert self.observed.desired is not None  # noqa: S101 - the chain's order guarantees it
        return self.observed.desired.agent.spec

    @property
    def serving(self) -> str:
        """The revision that serves by right: the stable one, or the first there is."""
        assert self.observed.desired is not None  # noqa: S101 - the chain's order guarantees it
        stable = self.decision.state.stable if self.decision else None
        return stable or self.observed.desired.revision

    def concerns(self, manifest: Mapping[str, Any]) -> bool:
        """Whether an object's trouble is the agent's: that of a revision that is going, or gone, is nobody's."""
        desired, state = self.observed.desired, self.decision.state if self.decision else None
        revision = revision_of(manifest)
        if not revision or desired is None or state is None:
            return True
        return revision in {desired.revision, state.stable, state.canary}

    @property
    def pods(self) -> list[Manifest]:
        """Pods whose trouble is the agent's, those of model Jobs among them."""
        return [pod for pod in self.observed.pods if self.concerns(pod)]

    @property
    def agent_pods(self) -> list[Manifest]:
        """Those of them that work for customers, in whichever layer."""
        return [pod for pod in self.observed.working_pods if self.concerns(pod)]

    @property
    def deployment(self) -> Manifest | None:
        """The Deployment of the revision that serves."""
        return self.observed.deployments.get(self.serving)

    @property
    def newest(self) -> Manifest | None:
        """The Deployment of the spec as it is."""
        desired = self.observed.desired
        return self.observed.deployments.get(desired.revision) if desired else None

    @property
    def newest_parts(self) -> Mapping[LayerName | None, Manifest | None]:
        """The same with those of its layers, each by its layer."""
        desired = self.observed.desired
        return self.observed.parts(desired.revision) if desired else {}


def parse_time(text: str | None) -> dt.datetime | None:
    """A timestamp of the API server."""
    return dt.datetime.fromisoformat(text) if text else None


def age(view: View, text: str | None) -> float:
    """Seconds since a timestamp; 0 without one."""
    then = parse_time(text)
    return max(0.0, (view.now - then).total_seconds()) if then else 0.0


def was_ready(agent: Mapping[str, Any]) -> bool:
    """Whether the agent is reported Ready for the spec it has now."""
    ready = condition(agent, READY)
    generation = agent["metadata"].get("generation", 0)
    return ready is not None and (ready["status"], ready.get("observedGeneration")) == ("True", generation)


def condition(manifest: Any, kind: str) -> dict[str, Any] | None:
    """A condition of an object by its type, or None."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), None)
