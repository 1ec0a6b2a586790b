"""How many pods a share of the traffic needs.

Stable keeps its full size until it has no traffic and the delay has passed, whoever splits the traffic: that is what
makes going back instant. Without a router (``provider: None``) weights are shares of the pods behind one Service, so a
canary of weight w beside n stable pods gets n * w / (100 - w) of them, and never more than n: a share above one half
stays one half until all of the traffic moves.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Final

from supportfleet_operator.api import Step
from supportfleet_operator.rollout.inputs import Inputs
from supportfleet_operator.rollout.state import RolloutState

FULL: Final = 100
AT_ONCE: Final = frozenset({"BlueGreen", "ABTest"})
"""Strategies that move all of the traffic at once, to a revision that has its full size from the start."""
WAVES: Final = 4
"""Rolling replaces a quarter of the pods at a time."""


def need(inputs: Inputs, weight: int) -> int:
    """Ready pods that a canary needs for a weight; its first pod comes up for none."""
    whole = inputs.replicas_needed
    if inputs.routed or weight >= FULL:
        share = ceil(whole * weight / FULL)
    else:
        share = floor(whole * weight / (FULL - weight) + 0.5)
    return min(whole, max(1, share))


def is_undo(state: RolloutState) -> bool:
    """Whether the rollout is one back to the revision before, which needs no trying."""
    return state.undone is not None and state.undone == state.stable


def steps(state: RolloutState, inputs: Inputs) -> tuple[Step, ...]:
    """The steps of this rollout."""
    return () if is_undo(state) else inputs.rollout.steps or ()


def step(state: RolloutState, inputs: Inputs) -> Step | None:
    """The step that the rollout is in; None after the last."""
    listed = steps(state, inputs)
    return listed[state.step] if state.step < len(listed) else None


def reached(state: RolloutState, inputs: Inputs) -> int:
    """The weight that the steps so far have led to."""
    weights = [one.set_weight for one in steps(state, inputs)[: state.step] if one.set_weight is not None]
    return weights[-1] if weights else 0


def mirrored(state: RolloutState, inputs: Inputs) -> int:
    """The share that the steps so far copy to the canary."""
    shares = [one.set_mirror for one in steps(state, inputs)[: state.step] if one.set_mirror is not None]
    return shares[-1] if shares else 0


def next_weight(state: RolloutState, inputs: Inputs) -> int | None:
    """The weight to move to next; None where the step asks for something else than weight."""
    if state.phase == "Promoting" or is_undo(state) or inputs.rollout.strategy in AT_ONCE:
        return FULL
    if inputs.rollout.strategy == "Rolling":
        return _next_wave(state.weight, inputs.replicas_needed)
    now = step(state, inputs)
    return FULL if now is None else now.set_weight


def wanted_pods(state: RolloutState, inputs: Inputs) -> int:
    """Pods that the canary needs for its traffic and for that of the step."""
    weight, mirror = max(state.weight, reached(state, inputs)), max(state.mirror, mirrored(state, inputs))
    now, upcoming = step(state, inputs), next_weight(state, inputs)
    copied = mirror if now is None or now.set_mirror is None else now.set_mirror
    now_and_then = ((weight, mirror), (weight if upcoming is None else upcoming, copied))
    return max(need(inputs, load(*one)) for one in now_and_then)


def has_pods(state: RolloutState, inputs: Inputs) -> bool:
    """Whether the canary has those pods, and one in any case."""
    return inputs.view(state.canary).ready >= max(1, wanted_pods(state, inputs))


def load(weight: int, mirror: int) -> int:
    """Percent of all requests that reach a canary: its own, and copies of others."""
    return min(FULL, weight + mirror)


def next_load(state: RolloutState, inputs: Inputs) -> int:
    """Percent of all requests that the rollout's next move brings to the canary; 0 for a move that brings none."""
    now = step(state, inputs)
    if state.phase == "Promoting":
        return FULL
    if now is None and inputs.rollout.strategy == "Rolling" and not is_undo(state):
        wave = _next_wave(state.weight, inputs.replicas_needed)
        return wave if wave < FULL else 0
    if now is not None and now.set_weight is not None:
        return load(now.set_weight, state.mirror)
    if now is not None and now.set_mirror is not None:
        return load(state.weight, now.set_mirror)
    return 0


def can_carry(state: RolloutState, inputs: Inputs, weight: int) -> bool:
    """Whether the canary has the pods for a weight."""
    return inputs.view(state.canary).ready >= max(1, need(inputs, weight))


def _next_wave(weight: int, pods: int) -> int:
    wave = max(1, ceil(pods / WAVES))
    ladder = (FULL * done // pods for done in range(wave, pods, wave))
    return next((one for one in ladder if one > weight), FULL)
