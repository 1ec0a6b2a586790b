"""Runbooks: whoever is called finds what to do, for every alert in a file of its own."""

from __future__ import annotations

from typing import Final

from supportfleet_runtime.checklist.outcome import NotCheckableError, Outcome, judged
from supportfleet_runtime.checklist.rules import alerts_of
from supportfleet_runtime.checklist.subject import Subject

LEAST_BYTES: Final = 200
"""Less is a heading and good intentions."""


async def check(subject: Subject) -> Outcome:
    """Look for the runbook of each alert in RUNBOOKS."""
    folder = subject.file("RUNBOOKS", subject.settings.runbooks, "a folder of Markdown files")
    if not folder.is_dir():
        raise NotCheckableError(f"RUNBOOKS: {folder} is no folder")
    wrong, alerts = [], alerts_of(subject)
    for alert in alerts:
        path = folder / alert.runbook
        if not path.is_file():
            wrong.append(f"{alert.name} has no runbook {alert.runbook}")
        elif path.stat().st_size < LEAST_BYTES:
            wrong.append(f"the runbook {alert.runbook} says next to nothing")
    return judged(wrong, f"all {len(alerts)} alerts have a runbook")
