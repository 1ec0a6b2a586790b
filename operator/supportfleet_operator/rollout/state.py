"""What a rollout remembers: ``status.rollout`` as a value, with times as times.

The state is written before it is acted upon, and every effect follows from the state, so an operator that was killed
between the two repeats the effect and nothing else. Whatever is read from a status that somebody else wrote is made
consistent here, once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from supportfleet_operator.api import AnalysisOutcome, RolloutPhase, RolloutStatus

MOVING: Final = frozenset({"Starting", "Stepping", "Paused", "Promoting"})
"""Phases that have a canary."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """How far a rollout is."""

    phase: RolloutPhase = "Idle"
    stable: str | None = None
    canary: str | None = None
    previous: str | None = None
    """Stable before: what ``undo`` goes back to."""
    step: int = 0
    weight: int = 0
    """Percent of the traffic for the canary."""
    mirror: int = 0
    """Percent of the traffic that the canary gets copies of."""
    step_started_at: dt.datetime | None = None
    phase_started_at: dt.datetime | None = None
    failed: str | None = None
    """Rolled back, and the spec still asks for it."""
    undone: str | None = None
    """Undone by a person, and the spec still asks for it."""
    reason: str = ""
    message: str = ""
    last_action_id: str | None = None
    last_analysis: tuple[AnalysisOutcome, ...] = ()
    last_analysis_at: dt.datetime | None = None
    """None: nothing was measured yet at this weight."""
    analysis_failures: int = 0
    baseline: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    checked: str | None = None
    """The canary, once it has passed its checklist."""
    lost_at: dt.datetime | None = None
    """When a canary that keeps losing its pods lost them first."""
    retiring: Mapping[str, dt.datetime] = field(default_factory=dict)
    """Revisions that lost their traffic and keep their pods for a while, and since when."""
    sticky: tuple[str, ...] = ()
    """Those of them that were promoted away, so that their conversations may stay with them."""

    @classmethod
    def from_status(cls, status: RolloutStatus | None) -> RolloutState:
        """What was remembered; the state before everything where nothing was."""
        if status is None:
            return cls()
        canary = status.canary_revision if status.canary_revision != status.stable_revision else None
        serving = {status.stable_revision, canary}
        retiring = {
            name: at
            for name, text in (status.retiring or {}).items()
            if name not in serving and (at := _time(text)) is not None
        }
        return cls(
            phase=_phase(status.phase or "Idle", canary),
            stable=status.stable_revision,
            canary=canary,
            previous=status.previous_revision,
            step=max(0, status.current_step or 0) if canary else 0,
            weight=_percent(status.current_weight) if canary and status.stable_revision else 0,
            mirror=_percent(status.current_mirror) if canary and status.stable_revision else 0,
            step_started_at=_time(status.step_started_at),
            phase_started_at=_time(status.phase_started_at),
            failed=status.failed_revision,
            undone=status.undone_revision,
            reason=status.reason or "",
            message=status.message or "",
            last_action_id=status.last_action_id,
            last_analysis=status.last_analysis or (),
            last_analysis_at=_time(status.last_analysis_at),
            analysis_failures=status.analysis_failures or 0,
            baseline=status.baseline or {},
            checked=status.checked_revision if status.checked_revision == canary else None,
            lost_at=_time(status.lost_at),
            retiring=retiring,
            sticky=tuple(name for name in status.sticky_revisions or () if name in retiring),
        )

    def to_status(self) -> RolloutStatus:
        """The same for ``status.rollout``."""
        return RolloutStatus(
            phase=self.phase,
            stable_revision=self.stable,
            canary_revision=self.canary,
            previous_revision=self.previous,
            current_step=self.step if self.canary else None,
            current_weight=self.weight if self.canary else None,
            current_mirror=self.mirror or None,
            step_started_at=_text(self.step_started_at),
            phase_started_at=_text(self.phase_started_at),
            failed_revision=self.failed,
            undone_revision=self.undone,
            reason=self.reason or None,
            message=self.message or None,
            last_action_id=self.last_action_id,
            last_analysis=self.last_analysis or None,
            last_analysis_at=_text(self.last_analysis_at),
            analysis_failures=self.analysis_failures or None,
            baseline={name: dict(counters) for name, counters in self.baseline.items()} or None,
            checked_revision=self.checked,
            lost_at=_text(self.lost_at),
            retiring={name: _text(at) or "" for name, at in self.retiring.items()} or None,
            sticky_revisions=self.sticky or None,
        )


def _percent(number: int | None) -> int:
    return min(100, max(0, number or 0))


def _phase(phase: RolloutPhase, canary: str | None) -> RolloutPhase:
    if canary is None:
        return "Idle" if phase in MOVING else phase
    return phase if phase in MOVING else "Starting"


def _time(text: str | None) -> dt.datetime | None:
    try:
        at = dt.datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=dt.UTC)


def _text(at: dt.datetime | None) -> str | None:
    return at.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if at else None
