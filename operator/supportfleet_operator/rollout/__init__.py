"""Rollouts: the pure decision on how a new revision takes over, and the analysis that may stop it.

Nothing here knows a clock, a network or a cluster: ``decide`` maps what is remembered (``RolloutState``, kept in
``status.rollout``) and what is seen (``Inputs``) to the next state and its effects, and ``analyse`` maps the texts that
pods serve, and what Prometheus answered to ``queries``, to a verdict.
"""

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.actions import ACTION, ACTION_ID, ACTION_REVISION, action_of
from supportfleet_operator.rollout.admission import is_unchecked
from supportfleet_operator.rollout.analysis.measure import analyse, scraped
from supportfleet_operator.rollout.analysis.prometheus import Answer, Query, answered, queries, unanswered
from supportfleet_operator.rollout.decide import decide, stand
from supportfleet_operator.rollout.inputs import (
    Action,
    AnalysisResult,
    ChecklistResult,
    Decision,
    Inputs,
    News,
    RevisionView,
    Scale,
)
from supportfleet_operator.rollout.state import RolloutState
from supportfleet_operator.rollout.timers import due

__all__ = [
    "ACTION",
    "ACTION_ID",
    "ACTION_REVISION",
    "Action",
    "AnalysisResult",
    "Answer",
    "ChecklistResult",
    "Decision",
    "Inputs",
    "News",
    "Query",
    "RevisionView",
    "RolloutState",
    "Scale",
    "action_of",
    "analyse",
    "answered",
    "decide",
    "due",
    "is_unchecked",
    "queries",
    "reasons",
    "scraped",
    "stand",
    "unanswered",
]
