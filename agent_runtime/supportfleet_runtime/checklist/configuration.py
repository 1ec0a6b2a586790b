"""Configuration: everything in the environment is right, as ``serve`` would find."""

from __future__ import annotations

from supportfleet_runtime.checklist.outcome import Outcome, judged
from supportfleet_runtime.checklist.subject import Subject


async def check(subject: Subject) -> Outcome:
    """All that is wrong, at once."""
    return judged(
        [str(problem) for problem in subject.problems], "every setting and the agent's configuration is right"
    )
