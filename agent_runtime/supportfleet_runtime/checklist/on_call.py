"""On call: a team was trained, and somebody says so: not longer ago than ``MOST_DAYS``.

The one thing here that no program can find out: ONCALL_ATTESTATION names a JSON or YAML file with ``team``, ``date``
(``2026-11-21``) and ``by``.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from supportfleet_runtime.checklist.outcome import Outcome, failed, judged
from supportfleet_runtime.checklist.rules import load_yaml, read
from supportfleet_runtime.checklist.subject import Subject

MOST_DAYS: Final = 90
HOLDS: Final = "a JSON or YAML file with 'team', 'date' and 'by'"
MAX_CHARACTERS: Final = 200


async def check(subject: Subject) -> Outcome:
    """Read the attestation."""
    path = subject.file("ONCALL_ATTESTATION", subject.settings.oncall_attestation, HOLDS)
    return judge(load_yaml(read(path, "ONCALL_ATTESTATION"), path.name), subject.now().date())


def judge(given: Any, today: date) -> Outcome:
    """Whether an attestation says what it must, and holds today. Pure."""
    if not isinstance(given, dict):
        return failed(f"the attestation must be {HOLDS}")
    wrong = [f"'{key}' is missing" for key in ("team", "by") if not _is_name(given.get(key))]
    day = _day(given.get("date"))
    if day is None:
        wrong.append("'date' must be a day like 2026-11-21")
    elif day > today:
        wrong.append(f"'date' is {day}, which is yet to come")
    elif (today - day).days > MOST_DAYS:
        wrong.append(f"the training of {day} was {(today - day).days} days ago, and {MOST_DAYS} are allowed")
    return judged(wrong, f"the team {given.get('team')} was trained on {day}")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= MAX_CHARACTERS and value.isprintable()


def _day(value: Any) -> date | None:
    """YAML makes a date of a day that is not quoted, and a time of one with a time."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
