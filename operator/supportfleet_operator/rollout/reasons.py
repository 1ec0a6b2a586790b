"""Why a rollout is where it is, in one word for programs; each with when it applies."""

from typing import Final

FIRST_REVISION: Final = "FirstRevision"
"""The agent's first revision comes up; nothing serves yet."""
STABLE: Final = "Stable"
"""The stable revision is what the spec asks for, and has all of the traffic."""
NO_PODS_WANTED: Final = "NoPodsWanted"
"""A new revision took over at once, since there was no traffic to try it on."""
NEW_REVISION: Final = "NewRevision"
"""The spec asks for another revision than the stable one; its first pods come up."""
STEPPING: Final = "Stepping"
"""The rollout goes through its steps."""
PAUSE_STEP: Final = "PauseStep"
"""A step says to wait, for a time or for a person."""
PAUSED_BY_SPEC: Final = "PausedBySpec"
"""spec.rollout.paused is set."""
PAUSED_BY_ACTION: Final = "PausedByAction"
"""A person paused it."""
RESUMED: Final = "Resumed"
"""It goes on after it was paused."""
AWAITING_CHECKLIST: Final = "AwaitingChecklist"
"""The new revision's pods are ready, and it has yet to pass spec.rollout.checklist before it gets traffic."""
CHECKLIST_FAILED: Final = "ChecklistFailed"
"""It failed a check: rolled back before it had traffic. With no stable revision: stalled."""
AWAITING_ANALYSIS: Final = "AwaitingAnalysis"
"""There was no verdict until the deadline, for want of figures, so nothing moves."""
STABLE_NOT_READY: Final = "StableNotReady"
"""The canary failed, but no stable pod could take its traffic."""
CANARY_LOST: Final = "CanaryLost"
"""No pod of the canary is ready any more; stable has all traffic until they are back."""
PROMOTING: Final = "Promoting"
"""All steps are done; all of the traffic moves to the new revision once its pods for that are ready."""
PROMOTED_BY_ACTION: Final = "PromotedByAction"
"""The same, with steps and analysis skipped by a person."""
PROMOTED: Final = "Promoted"
"""The new revision took over."""
UNDOING: Final = "Undoing"
"""A person asked for the revision before the stable one."""
SUSPENDED: Final = "Suspended"
"""spec.suspend is set: nothing runs, and no rollout either."""
WENT_BACK: Final = "WentBack"
"""The spec asks for the stable revision again."""
SUPERSEDED: Final = "Superseded"
"""The spec asks for yet another revision."""
ANALYSIS_FAILED: Final = "AnalysisFailed"
"""The canary's figures were worse than allowed: rolled back."""
PROGRESS_DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"
"""The canary was not ready in time: rolled back. With no stable revision: stalled."""
ABORTED_BY_ACTION: Final = "AbortedByAction"
"""A person aborted it: rolled back."""
ACTION_IGNORED: Final = "ActionIgnored"
"""An action was not meant for the revision or the state that it found; an event only."""

HELD_BY_PERSON: Final = frozenset({PAUSED_BY_SPEC, PAUSED_BY_ACTION})
"""While one of these holds, nothing is measured, moved or rolled back."""
ENDED_BY_SPEC: Final = frozenset({WENT_BACK, SUPERSEDED})
"""The canary isn't wanted any more; it stays only as long as stable can't take over."""
WARNINGS: Final = frozenset(
    {
        ANALYSIS_FAILED,
        CHECKLIST_FAILED,
        PROGRESS_DEADLINE_EXCEEDED,
        ABORTED_BY_ACTION,
        AWAITING_ANALYSIS,
        CANARY_LOST,
        STABLE_NOT_READY,
        ACTION_IGNORED,
    }
)
"""Reasons whose events are warnings."""
