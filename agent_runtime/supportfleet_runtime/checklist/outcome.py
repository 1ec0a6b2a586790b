"""What a check finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from supportfleet_runtime.errors import SupportfleetError


class Verdict(StrEnum):
    """A check's outcome in a word."""

    PASS = "PASS"  # noqa: S105 - no password
    FAIL = "FAIL"
    ERROR = "ERROR"


EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.ERROR: 2}


class NotCheckableError(SupportfleetError):
    """The check can't be made; the message says what it takes."""


@dataclass(frozen=True)
class Outcome:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Result:
    """A check's outcome, and how long it took."""

    name: str
    outcome: Outcome
    seconds: float


def passed(reason: str) -> Outcome:
    """All is well."""
    return Outcome(Verdict.PASS, reason)


def failed(*reasons: str) -> Outcome:
    """What is checked is wrong, for these reasons."""
    return Outcome(Verdict.FAIL, "; ".join(reasons))


def judged(wrong: Sequence[str], reason: str) -> Outcome:
    """Failed where anything is wrong, else passed."""
    return failed(*wrong) if wrong else passed(reason)


def overall(results: Sequence[Result]) -> Verdict:
    """The verdict on all of them: what failed outweighs what is not known, and of none nothing is known. Pure."""
    verdicts = {result.outcome.verdict for result in results} or {Verdict.ERROR}
    return next((one for one in (Verdict.FAIL, Verdict.ERROR) if one in verdicts), Verdict.PASS)
