"""Saying hello."""

from __future__ import annotations

from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def greeting(case: Case) -> RuleAnswer:
    """Greet in the agent's own words."""
    return RuleAnswer(case.settings.greeting)
