"""The rollout's decision: from what is remembered and what is seen to what is next. No clock, no I/O.

One call remembers what was measured and makes at most one move, so that every state in between is written before the
next is decided upon: weight goes to zero in one, pods are given back in a later one. Where the state changed,
``requeue_after`` is 0.
"""

from __future__ import annotations

from dataclasses import replace

from supportfleet_operator.rollout import effects, reasons
from supportfleet_operator.rollout.inputs import Decision, Inputs, News
from supportfleet_operator.rollout.policies import action, next_state, remember
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import next_look


def decide(state: RolloutState, inputs: Inputs) -> Decision:
    """The next state, and what follows from it."""
    after = next_state(state, inputs)
    decision = _of(after, inputs)
    if after == state:
        return decision
    return replace(decision, requeue_after=0.0, news=_news(state, after, inputs))


def stand(state: RolloutState, inputs: Inputs) -> Decision:
    """What follows from a state as it is, with what was found out and with no move."""
    return _of(remember(state, inputs), inputs)


def _of(state: RolloutState, inputs: Inputs) -> Decision:
    return Decision(
        state=state,
        weights=effects.weights(state),
        matched=effects.matched(state, inputs),
        mirror=effects.mirror(state, inputs),
        sticky=effects.sticky(state, inputs),
        scale=effects.scale(state, inputs),
        keep=effects.keep(state, inputs),
        requeue_after=next_look(state, inputs),
        reason=state.reason,
        message=_message(state, inputs),
        news=(),
    )


def _message(state: RolloutState, inputs: Inputs) -> str:
    problem = inputs.view(state.canary).problem
    return f"{state.message}: {problem}" if problem and problem not in state.message else state.message


def _news(before: RolloutState, after: RolloutState, inputs: Inputs) -> tuple[News, ...]:
    news = []
    if (before.phase, before.reason, before.message) != (after.phase, after.reason, after.message) and after.message:
        news.append(_event(after.reason, after.message))
    if inputs.action and before.last_action_id != after.last_action_id == inputs.action.id:
        ignored = action.outcome(before, inputs)
        if isinstance(ignored, str):
            news.append(_event(reasons.ACTION_IGNORED, f"action {inputs.action.name!r} is ignored: {ignored}"))
    return tuple(news)


def _event(reason: str, note: str) -> News:
    return News("Warning" if reason in reasons.WARNINGS else "Normal", reason, note)
