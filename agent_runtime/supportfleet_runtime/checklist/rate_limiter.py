"""Rate limiter: a customer who sends too much is told so, and nobody else is."""

from __future__ import annotations

from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome
from supportfleet_runtime.checklist.subject import Subject


async def check(_subject: Subject) -> Outcome:
    """There is nothing to try out."""
    raise NotCheckableError("no rate limiter is configured")
