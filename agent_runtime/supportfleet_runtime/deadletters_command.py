"""The command ``deadletters``: list the messages that were given up, or have them worked again.

What customers wrote is not shown: ``GET /v1/conversations/{id}`` does that, for whoever may see it. Exit codes: 0 done,
1 some of the named messages are no dead letters, 3 the database is out of reach.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.database_command import OK, REFUSED, run_on_database
from supportfleet_runtime.listings import MOST, add_options, print_found
from supportfleet_runtime.queue.deadletters import DeadLetter, DeadLetters
from supportfleet_runtime.storage.database import Database

HEADING = ("TASK", "CONVERSATION", "TURN", "TRIES", "ERROR", "DIED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = commands.add_parser("list", help="show the latest, the newest first")
    add_options(listing)
    replaying = commands.add_parser(
        "replay", help="have them worked again; the new reply takes the generic one's place"
    )
    chosen = replaying.add_mutually_exclusive_group(required=True)
    chosen.add_argument("task_ids", nargs="*", default=[], metavar="TASK_ID", help="those of these tasks")
    chosen.add_argument("--all", action="store_true", help=f"all, up to {MOST}")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""

    async def work(database: Database, scope: str) -> int:
        letters = DeadLetters(database, scope, now=utc_now)
        if arguments.action == "list":
            print_found(await letters.latest(arguments.limit), arguments.output, HEADING, _row)
            return OK
        return await _replay(letters, None if arguments.all else arguments.task_ids)

    return run_on_database(work)


async def _replay(letters: DeadLetters, named: Sequence[str] | None) -> int:
    ids = [letter.task_id for letter in await letters.latest(MOST)] if named is None else list(named)
    replayed = await letters.replay(ids)
    for id_ in ids:
        sys.stdout.write(f"{id_} {'replayed' if id_ in replayed else 'is no dead letter of this agent'}\n")
    return OK if len(replayed) == len(set(ids)) else REFUSED


def _row(one: DeadLetter) -> tuple[str, ...]:
    died = one.died_at.isoformat(timespec="seconds") if one.died_at else "-"
    return (one.task_id, one.conversation_id, str(one.turn), str(one.tries), one.error or "-", died)
