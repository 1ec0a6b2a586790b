"""The command ``effects``: list what tools may have done or not, and say of one whether it was done.

Exit codes: 0 done, 1 the effect is unknown, or not ambiguous, 3 the database is out of reach.
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
from supportfleet_runtime.errors import ConflictError, NotFoundError, StorageUnavailableError
from supportfleet_runtime.listings import add_limit, person, print_json, print_table
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.tools.ambiguous import AmbiguousEffect, AmbiguousEffects

OK, REFUSED, UNREACHABLE = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show those that nobody knows of, the oldest first")
    add_limit(listing)
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table")
    resolving = actions.add_parser("resolve", help="say whether one was done; nothing is carried out")
    resolving.add_argument("key", metavar="KEY")
    found = resolving.add_mutually_exclusive_group(required=True)
    found.add_argument("--done", action="store_true", help="it was done")
    found.add_argument("--not-done", action="store_true", help="it was not")
    resolving.add_argument("--person", required=True, type=person, help="who found out")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    settings = config.load(os.environ).settings

    async def work() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        try:
            return await _do(AmbiguousEffects(database, settings.scope, now=utc_now), arguments)
        except (NotFoundError, ConflictError) as error:
            sys.stderr.write(f"{arguments.key}: {error}\n")
            return REFUSED
        except StorageUnavailableError as error:
            sys.stderr.write(f"{error}\n")
            return UNREACHABLE
        finally:
            await database.close()

    return asyncio.run(work())


async def _do(found: AmbiguousEffects, arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        return _show(await found.oldest(arguments.limit), arguments.output)
    await found.resolve(arguments.key, done=arguments.done, person=arguments.person)
    sys.stdout.write(f"{arguments.key} {'done' if arguments.done else 'not done'}\n")
    return OK


def _show(found: Sequence[AmbiguousEffect], output: str) -> int:
    if output == "json":
        print_json(found)
        return OK
    rows = [
        (one.key, one.tool, one.task_id, one.conversation_id, one.updated_at.isoformat(timespec="seconds"))
        for one in found
    ]
    print_table([("KEY", "TOOL", "TASK", "CONVERSATION", "SINCE"), *rows])
    return OK
