"""The command ``deadletters``: list the messages that were given up, or have them worked again.

What customers wrote is not shown: ``GET /v1/conversations/{id}`` does that, for whoever may see it. Exit codes: 0 done,
1 some of the named messages are no dead letters, 3 the database is out of reach.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from supportfleet_runtime import config
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.listings import MOST, add_limit, print_json, print_table
from supportfleet_runtime.queue.deadletters import DeadLetter, DeadLetters
from supportfleet_runtime.storage.database import Database

OK, UNKNOWN, UNREACHABLE = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = commands.add_parser("list", help="show the latest, the newest first")
    add_limit(listing)
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table")
    replaying = commands.add_parser(
        "replay", help="have them worked again; the new reply takes the generic one's place"
    )
    chosen = replaying.add_mutually_exclusive_group(required=True)
    chosen.add_argument("task_ids", nargs="*", default=[], metavar="TASK_ID", help="those of these tasks")
    chosen.add_argument("--all", action="store_true", help=f"all, up to {MOST}")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    settings = config.load(os.environ).settings

    async def work() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        letters = DeadLetters(database, settings.scope, now=utc_now)
        try:
            if arguments.action == "list":
                return _show(await letters.latest(arguments.limit), arguments.output)
            return await _replay(letters, None if arguments.all else arguments.task_ids)
        except StorageUnavailableError as error:
            sys.stderr.write(f"{error}\n")
            return UNREACHABLE
        finally:
            await database.close()

    return asyncio.run(work())


async def _replay(letters: DeadLetters, named: Sequence[str] | None) -> int:
    ids = [letter.task_id for letter in await letters.latest(MOST)] if named is None else list(named)
    replayed = await letters.replay(ids)
    for id_ in ids:
        sys.stdout.write(f"{id_} {'replayed' if id_ in replayed else 'is no dead letter of this agent'}\n")
    return OK if len(replayed) == len(set(ids)) else UNKNOWN


def _show(letters: Sequence[DeadLetter], output: str) -> int:
    if output == "json":
        print_json(letters)
        return OK
    rows = [("TASK", "CONVERSATION", "TURN", "TRIES", "ERROR", "DIED")]
    for one in letters:
        died = one.died_at.isoformat(timespec="seconds") if one.died_at else "-"
        rows.append((one.task_id, one.conversation_id, str(one.turn), str(one.tries), one.error or "-", died))
    print_table(rows)
    return OK
