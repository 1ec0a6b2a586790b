"""The command ``effects``: list what tools may have done or not, and say of one whether it was done.

Exit codes: 0 done, 1 the effect is unknown, or not ambiguous, 3 the database is out of reach.
"""

from __future__ import annotations

import argparse
import sys

from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.database_command import OK, run_on_database
from supportfleet_runtime.listings import add_options, person, print_found
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.tools.ambiguous import AmbiguousEffect, AmbiguousEffects

HEADING = ("KEY", "TOOL", "TASK", "CONVERSATION", "SINCE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show those that nobody knows of, the oldest first")
    add_options(listing)
    resolving = actions.add_parser("resolve", help="say whether one was done; nothing is carried out")
    resolving.add_argument("key", metavar="KEY")
    found = resolving.add_mutually_exclusive_group(required=True)
    found.add_argument("--done", action="store_true", help="it was done")
    found.add_argument("--not-done", action="store_true", help="it was not")
    resolving.add_argument("--person", required=True, type=person, help="who found out")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""

    async def work(database: Database, scope: str) -> int:
        effects = AmbiguousEffects(database, scope, now=utc_now)
        if arguments.action == "list":
            print_found(await effects.oldest(arguments.limit), arguments.output, HEADING, _row)
            return OK
        await effects.resolve(arguments.key, done=arguments.done, person=arguments.person)
        sys.stdout.write(f"{arguments.key} {'done' if arguments.done else 'not done'}\n")
        return OK

    return run_on_database(work, about=getattr(arguments, "key", ""))


def _row(one: AmbiguousEffect) -> tuple[str, ...]:
    return (one.key, one.tool, one.task_id, one.conversation_id, one.updated_at.isoformat(timespec="seconds"))
