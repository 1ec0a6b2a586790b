"""The command ``checklist``: the pre-deployment checks, made for real.

It reads the environment that the agent's pods have. Exit codes: 0 everything passed, 1 something failed, 2 nothing did,
yet something could not be checked. The last word in a container's termination message says the same in short.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from supportfleet_runtime.checklist.outcome import EXIT_CODES, Result, Verdict, overall
from supportfleet_runtime.checklist.runner import CHECKS, run_checks
from supportfleet_runtime.checklist.subject import make_subject
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.models.sync_command import write_last_word

REASONS = {
    Verdict.PASS: "ChecklistPassed",
    Verdict.FAIL: "ChecklistFailed",
    Verdict.ERROR: "ChecklistIncomplete",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--url", type=_url, help="a running agent's address, such as http://NAME-REVISION")
    parser.add_argument(
        "--api-key-file", type=_key, dest="api_key", metavar="FILE", help="an API key that the agent takes"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(CHECKS),
        default=[],
        metavar="CHECK",
        help="this check; may be repeated",
    )
    parser.add_argument(
        "--skip",
        action="append",
        choices=sorted(CHECKS),
        default=[],
        metavar="CHECK",
        help="all but this check; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the checks; the exit code."""
    subject = make_subject(os.environ, arguments.url, utc_now, arguments.api_key)
    results = asyncio.run(run_checks(subject, arguments.only, arguments.skip))
    verdict = overall(results)
    body = {"verdict": verdict, "checked_at": utc_now(), "checks": [_as_json(result) for result in results]}
    written = orjson.dumps(body, option=orjson.OPT_INDENT_2).decode() if arguments.output == "json" else table(results)
    sys.stdout.write(f"{written}\n")
    write_last_word(os.environ, {"reason": REASONS[verdict], "message": last_words(results)})
    return EXIT_CODES[verdict]


def table(results: Sequence[Result]) -> str:
    """A line for each check."""
    width = max((len(result.name) for result in results), default=0)
    return "\n".join(f"{one.outcome.verdict:<5}  {one.name:<{width}}  {one.outcome.reason}" for one in results)


def last_words(results: Sequence[Result]) -> str:
    """What did not pass, and why."""
    if not results:
        return "no check is left: see --only and --skip"
    wrong = [result for result in results if result.outcome.verdict is not Verdict.PASS]
    told = "; ".join(f"{one.name} {one.outcome.verdict}: {one.outcome.reason}" for one in wrong)
    return told or f"{len(results)} checks passed"


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "verdict": result.outcome.verdict,
        "reason": result.outcome.reason,
        "seconds": round(result.seconds, 3),
    }


def _key(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError("it can't be read") from error


def _url(given: str) -> str:
    if not given.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("it must be an http:// or https:// address")
    return given
