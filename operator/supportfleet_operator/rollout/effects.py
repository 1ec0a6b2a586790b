"""What follows from a state: who gets which share of the traffic, how many pods each revision has, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from supportfleet_operator.rollout.admission import is_admitted
from supportfleet_operator.rollout.capacity import FULL, wanted_pods
from supportfleet_operator.rollout.inputs import Inputs, Scale
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import may_be_needed

SERVING: Final = frozenset({"Stepping", "Paused", "Promoting"})
"""Phases in which a canary may be sent requests, also with no weight yet."""


def weights(state: RolloutState) -> Mapping[str, int]:
    """Percent of the traffic by revision; nothing until there is a stable one."""
    if state.stable is None:
        return {}
    canary = {state.canary: state.weight} if state.canary else {}
    return {name: weight for name, weight in {state.stable: FULL - sum(canary.values()), **canary}.items() if weight}


def matched(state: RolloutState, inputs: Inputs) -> str | None:
    """The revision for requests that ``spec.rollout.match`` chooses; None where they go by weight as all do."""
    return state.canary if inputs.rollout.match and inputs.routed and _serves(state, inputs) else None


def mirror(state: RolloutState, inputs: Inputs) -> tuple[str, int] | None:
    """Which revision gets copies, and of how much; none for one without ready pods, or with all of the traffic."""
    if state.canary is None or not state.mirror or state.weight >= FULL or not inputs.routed:
        return None
    return (state.canary, state.mirror) if _serves(state, inputs) else None


def sticky(state: RolloutState, inputs: Inputs) -> tuple[str, ...]:
    """Revisions that conversations stay with: never one that was rolled back, and none where there is no other."""
    if inputs.sticky_seconds is None or state.stable is None or inputs.suspended or not inputs.routed:
        return ()
    canary = state.canary if state.weight > 0 and _serves(state, inputs) else matched(state, inputs)
    newest_first = sorted(state.sticky, key=lambda name: (state.retiring[name], name), reverse=True)
    names = [name for name in (state.stable, canary, *newest_first) if name]
    return tuple(name for name in names if inputs.view(name).ready > 0) if len(names) > 1 else ()


def _serves(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the canary may be sent requests, beside those of its weight."""
    begun = state.weight > 0 or state.mirror > 0 or (state.phase in SERVING and is_admitted(state, inputs))
    return state.stable is not None and not inputs.suspended and begun and inputs.view(state.canary).ready > 0


def keep(state: RolloutState, inputs: Inputs) -> tuple[str, ...]:
    """Revisions that are in use or may be gone back to, and the newest of the others."""
    used = (state.stable, state.canary, inputs.target, state.previous, state.failed, state.undone, *state.retiring)
    in_use = dict.fromkeys(name for name in used if name)
    others = sorted(
        (view for view in inputs.revisions.values() if view.name not in in_use),
        key=lambda view: (view.number, view.name),
        reverse=True,
    )
    return (*in_use, *(view.name for view in others[: inputs.rollout.revision_history_limit]))


def scale(state: RolloutState, inputs: Inputs) -> Mapping[str, Scale]:
    """Pods for each revision that is kept; those with nothing to do have none."""
    return {name: _scale(name, state, inputs) for name in keep(state, inputs)}


def _scale(name: str, state: RolloutState, inputs: Inputs) -> Scale:
    if inputs.suspended:
        return Scale(0, autoscaled=False)
    if name == state.stable:
        settled = state.canary is None and not may_be_needed(state, inputs)
        return Scale(inputs.min_replicas if settled else inputs.replicas_needed, autoscaled=True)
    if name == state.canary:
        first = state.stable is None
        return Scale(inputs.replicas_needed if first else wanted_pods(state, inputs), autoscaled=True)
    if name in state.retiring and not _shares_pods(state, inputs):
        return Scale(inputs.view(name).desired, autoscaled=False)
    return Scale(0, autoscaled=False)


def _shares_pods(state: RolloutState, inputs: Inputs) -> bool:
    """Whether one Service splits the traffic over all pods, so that a third revision would get some."""
    return not inputs.routed and len(weights(state)) > 1
