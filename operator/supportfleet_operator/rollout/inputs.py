"""What a decision looks at, and what it is: plain values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from supportfleet_operator.api import ROUTED, AnalysisOutcome, Provider, Rollout, Verdict
from supportfleet_operator.rollout.state import RolloutState


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision's pods, as its Deployment tells of them."""

    name: str
    desired: int = 0
    ready: int = 0
    exists: bool = True
    problem: str | None = None
    """Why its pods don't get ready."""
    number: int = 0
    """The ControllerRevision's number: a newer one has a higher one."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a person asked for, by annotation."""

    name: str
    revision: str
    id: str


@dataclass(frozen=True, slots=True)
class AnalysisResult:
    """One measurement."""

    at: dt.datetime
    canary: str | None
    step_started_at: dt.datetime | None
    """Which step it was made in: a result from before the last step says nothing about this one."""
    outcomes: tuple[AnalysisOutcome, ...]
    verdict: Verdict
    baseline: Mapping[str, Mapping[str, float]]
    """What the next measurement is compared with."""


@dataclass(frozen=True, slots=True)
class ChecklistResult:
    """How the checklist of one revision went so far."""

    revision: str
    verdict: Literal["Running", "Passed", "Failed"]
    message: str = ""
    """What did not pass, and why; what it waits for."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a decision follows from, beside the state."""

    now: dt.datetime
    target: str
    """The revision that the spec describes."""
    rollout: Rollout
    provider: Provider
    replicas_needed: int
    """Pods that stable's traffic needs now."""
    min_replicas: int
    """Pods of a stable revision with no rollout: spec.replicas, or the autoscaler's minimum."""
    revisions: Mapping[str, RevisionView]
    analysis: AnalysisResult | None = None
    checklist: ChecklistResult | None = None
    """The canary's, while it has one to pass."""
    action: Action | None = None
    suspended: bool = False
    sticky_seconds: int | None = None
    """How long a conversation stays with the revision that it began with; None where the spec doesn't ask for it."""

    @property
    def routed(self) -> bool:
        """Whether something splits requests by exact weights, so that a weight is not a share of the pods."""
        return self.provider in ROUTED

    def view(self, revision: str | None) -> RevisionView:
        """A revision's pods; none where it is unknown."""
        known = self.revisions.get(revision) if revision else None
        return known or RevisionView(revision or "", exists=False)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many pods a revision gets."""

    min_replicas: int
    autoscaled: bool
    """Whether its autoscaler, where the spec has one, may add to them."""


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell as an event."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state, and what follows from it."""

    state: RolloutState
    weights: Mapping[str, int]
    """Percent by revision, without zeros; empty until the first revision is ready."""
    matched: str | None
    """The revision that gets the requests which ``spec.rollout.match`` chooses; None where they go by weight."""
    mirror: tuple[str, int] | None
    """The revision that gets copies of requests, whose answers are thrown away, and of how many percent."""
    sticky: tuple[str, ...]
    """Revisions with ready pods that the conversations they began stay with; none where all go to one anyway."""
    scale: Mapping[str, Scale]
    """For each revision in ``keep``."""
    keep: tuple[str, ...]
    """The other revisions are garbage."""
    requeue_after: float | None
    reason: str
    message: str
    news: tuple[News, ...]
