"""Forgotten passwords: the reset page does it; an agent never sees or sets one."""

from __future__ import annotations

from supportfleet_runtime.agent.rules.case import Case, RuleAnswer


def password_reset(case: Case) -> RuleAnswer:
    """Point to the page that sends the reset link."""
    return RuleAnswer(
        f"You can set a new password at {case.settings.rules.password_reset_url}: we send a link to your e-mail"
        " address. It may take a few minutes; please look into your spam folder too."
    )
