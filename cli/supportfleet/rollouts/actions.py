"""A person's word on a rollout: three annotations, which the operator carries out once for each id.

The revision that an action is meant for is part of it, so that a word that comes too late means nothing. What the
state does not allow is refused here with the reason, since the operator would only ignore it with an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from supportfleet.errors import SupportfleetError
from supportfleet.rollouts.api import GROUP, Object
from supportfleet.rollouts.steps import pause_of

PROMOTE: Final = "promote"
ABORT: Final = "abort"
RETRY: Final = "retry"
PAUSE: Final = "pause"
RESUME: Final = "resume"
UNDO: Final = "undo"

HELP: Final[Mapping[str, str]] = MappingProxyType(
    {
        PROMOTE: "Give the canary all of the traffic, without the remaining steps and the analysis.",
        ABORT: "Take all traffic from the canary: roll it back.",
        RETRY: "Try a revision again that was rolled back or undone.",
        PAUSE: "Hold a rollout where it is: nothing moves, is measured or is rolled back.",
        RESUME: "Go on after a pause, of a step or of a person.",
        UNDO: "Go back to the revision before the stable one, at once.",
    }
)

PAUSED_BY_ACTION: Final = "PausedByAction"
PAUSED_BY_SPEC: Final = "PausedBySpec"
PAUSE_STEP: Final = "PauseStep"
HELD: Final = frozenset({PAUSED_BY_ACTION, PAUSED_BY_SPEC, "AwaitingAnalysis", "StableNotReady"})
"""Reasons for which a rollout stands still, and no step of it says so."""
NOT_TAKEN_UP: Final = "the operator has not taken it up yet"
IGNORED: Final = "the operator ignored it: the agent's events (kubectl describe) say why"
WENT_ON_HINT: Final = "See 'supportfleet status {name}'"

State = Mapping[str, Any]


class RefusedError(SupportfleetError):
    """The state of the rollout does not allow the action."""


class ActionFailedError(SupportfleetError):
    """The action was asked for, and what it was meant to bring about did not come about."""


@dataclass(frozen=True)
class Intent:
    """An action, the revision it is meant for, and its id."""

    action: str
    revision: str
    id: str

    @property
    def patch(self) -> Object:
        """The change of the agent that asks for it."""
        prefix = f"{GROUP}/action"
        words = {prefix: self.action, f"{prefix}-revision": self.revision, f"{prefix}-id": self.id}
        return {"metadata": {"annotations": words}}


@dataclass(frozen=True)
class Progress:
    """How far an action is."""

    outcome: Literal["waiting", "done", "failed"]
    message: str


def intended(action: str, agent: Object, action_id: str) -> Intent:
    """The action on the revision that it can only be meant for.

    Raises:
        RefusedError: The state does not allow it; says why, and what does.
    """
    name, state = agent["metadata"]["name"], _state(agent)
    found = _refusal(action, agent, state)
    if isinstance(found, str):
        return Intent(action, found, action_id)
    why, remedy = found
    raise RefusedError(f"can't {action} {name}: {why}", remedy=remedy or WENT_ON_HINT.format(name=name))


def _state(agent: Object) -> State:
    state: State = (agent.get("status") or {}).get("rollout") or {}
    return state


Found = str | tuple[str, str]
"""The revision that is meant; or why there is none, and what to do."""


def _refusal(action: str, agent: Object, state: State) -> Found:
    if not state:
        return "the operator has not seen it yet", "Is the operator running? kubectl -n supportfleet-system get pods"
    if (agent.get("spec") or {}).get("suspend"):
        return "it is suspended", "Set spec.suspend to false first"
    return _CHECKS[action](state)


def _promote(state: State) -> Found:
    if state.get("canaryRevision") and state.get("phase") == "Promoting":
        return f"{state['canaryRevision']} is being promoted already", ""
    return _canary(state)


def _abort(state: State) -> Found:
    if not state.get("canaryRevision") and state.get("failedRevision"):
        return f"{state['failedRevision']} is rolled back already", ""
    return _canary(state)


def _pause(state: State) -> Found:
    if state.get("canaryRevision") and state.get("reason") == PAUSED_BY_ACTION:
        return "it is paused already", "Go on with 'resume'"
    return _canary(state)


def _resume(state: State) -> Found:
    canary = _canary(state)
    if not isinstance(canary, str):
        return canary
    if state.get("reason") in {PAUSED_BY_ACTION, PAUSE_STEP} and state.get("phase") == "Paused":
        return canary
    if state.get("reason") == PAUSED_BY_SPEC:
        return "spec.rollout.paused holds it", "Set spec.rollout.paused to false"
    if state.get("phase") == "Paused":
        return (
            f"it waits for something else: {state.get('message', '')}",
            "Go on with 'promote', or end it with 'abort'",
        )
    return "nothing is paused", ""


def _retry(state: State) -> Found:
    if canary := state.get("canaryRevision"):
        return f"{canary} is being rolled out", "End that with 'abort' first"
    revision: str | None = state.get("failedRevision") or state.get("undoneRevision")
    return revision or ("no revision was rolled back or undone", "")


def _undo(state: State) -> Found:
    if canary := state.get("canaryRevision"):
        return f"{canary} is being rolled out", "End that with 'abort'"
    for field, what in (("failedRevision", "rolled back"), ("undoneRevision", "undone")):
        if state.get(field):
            return (
                f"the spec still asks for {state[field]}, which was {what}",
                "Change the spec to what you want, or try that revision again with 'retry'",
            )
    if not state.get("previousRevision") or not state.get("stableRevision"):
        return "there is no revision before the stable one", ""
    return str(state["stableRevision"])


def _canary(state: State) -> Found:
    canary: str | None = state.get("canaryRevision")
    if not canary:
        return f"no revision is being rolled out: {state.get('stableRevision')} is stable", ""
    if not state.get("stableRevision"):
        return f"{canary} is the first revision, which takes over as soon as its pods are ready", ""
    return canary


_CHECKS: Final[Mapping[str, Callable[[State], Found]]] = MappingProxyType(
    {PROMOTE: _promote, ABORT: _abort, RETRY: _retry, PAUSE: _pause, RESUME: _resume, UNDO: _undo}
)


def progress(intent: Intent, agent: Object) -> Progress:
    """How far the action is: done once the rollout has come to its end, or to where a person has to say more.

    ``abort`` is done once the canary is rolled back, and ``pause`` once it is held.
    """
    state = _state(agent)
    if not _is_taken_up(intent, agent, state):
        return Progress("waiting", NOT_TAKEN_UP)
    message = state.get("message") or ""
    if intent.action == ABORT:
        return _aborted(intent, state, message)
    if intent.action == PAUSE and state.get("canaryRevision") == intent.revision:
        if state.get("reason") == PAUSED_BY_ACTION:
            return Progress("done", f"{intent.revision} is {message}")
        return Progress("failed", IGNORED)
    return _followed(intent, agent, state, message)


def _is_taken_up(intent: Intent, agent: Object, state: State) -> bool:
    """Whether the operator has seen the action; another one that has taken its place is not waited for."""
    asked = (agent["metadata"].get("annotations") or {}).get(f"{GROUP}/action-id")
    return state.get("lastActionId") == intent.id or asked != intent.id


def _aborted(intent: Intent, state: State, message: str) -> Progress:
    if state.get("stableRevision") == intent.revision:
        return Progress("failed", f"{intent.revision} had been promoted before")
    if state.get("canaryRevision") == intent.revision:
        return Progress("failed", IGNORED)
    if state.get("phase") in {"RolledBack", "Idle"}:
        return Progress("done", message or f"{intent.revision} was rolled back")
    return Progress("waiting", message)


def _followed(intent: Intent, agent: Object, state: State, message: str) -> Progress:
    """The rollout of the canary to its end."""
    canary, stable = state.get("canaryRevision"), state.get("stableRevision")
    if intent.action == UNDO and state.get("undoneRevision") == intent.revision:
        if canary is None and stable != intent.revision:
            return Progress("done", f"{stable} is the stable revision")
        return Progress("waiting", message)
    if canary == intent.revision:
        return _stopped(intent, agent, state, message)
    if intent.action != UNDO and canary is None and stable == intent.revision:
        outcome: Literal["done", "failed"] = "failed" if intent.action == PAUSE else "done"
        return Progress(outcome, f"{intent.revision} is the stable revision")
    return Progress("failed", message or f"{intent.revision} is not being rolled out any more")


def _stopped(intent: Intent, agent: Object, state: State, message: str) -> Progress:
    """A rollout that goes on, or that waits for a person."""
    if intent.action in {RESUME, RETRY} and state.get("phase") == "Paused":
        if state.get("reason") in HELD:
            return Progress("failed", message)
        if state.get("reason") == PAUSE_STEP and _is_open_pause(agent, state):
            return Progress("done", f"{intent.revision} is {message}")
    return Progress("waiting", message)


def _is_open_pause(agent: Object, state: State) -> bool:
    steps = (agent["spec"].get("rollout") or {}).get("steps") or ()
    current = state.get("currentStep", 0)
    return current < len(steps) and "pause" in steps[current] and pause_of(steps[current]) is None
