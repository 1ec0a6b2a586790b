"""Handing over to a person."""

from __future__ import annotations

from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def human(case: Case) -> RuleAnswer:
    """Pass the conversation on; who asks twice is told that it already was."""
    if case.escalated:
        return RuleAnswer("A colleague already has this conversation and will get back to you here.")
    return RuleAnswer(case.settings.escalation_reply, escalate=True)
