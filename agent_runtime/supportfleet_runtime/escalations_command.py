"""The command ``escalations``: list the calls for a person, take one, end it.

What customers wrote is not shown: ``GET /v1/conversations/{id}`` does that, for whoever may see it. Exit codes: 0 done,
1 the call is unknown, or another person's, 3 the database is out of reach.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from supportfleet_runtime import config
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.escalations import Escalation, Escalations
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import ConflictError, NotFoundError, StorageUnavailableError
from supportfleet_runtime.listings import add_limit, person, print_json, print_table
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import CLAIMED, OPEN, RESOLVED

OK, REFUSED, UNREACHABLE = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show those that wait for somebody or are claimed, the oldest first")
    listing.add_argument("--all", action="store_true", help="the resolved ones too")
    add_limit(listing)
    listing.add_argument("-o", "--output", choices=("table", "json"), default="table")
    for name, summary in (("claim", "take one: it is nobody else's then"), ("resolve", "end one that was claimed")):
        action = actions.add_parser(name, help=summary)
        action.add_argument("escalation_id", metavar="ESCALATION_ID")
        action.add_argument("--person", required=True, type=person, help="who does it")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    settings = config.load(os.environ).settings

    async def work() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        try:
            return await _do(Escalations(database, settings.scope, now=utc_now), arguments)
        except (NotFoundError, ConflictError) as error:
            sys.stderr.write(f"{arguments.escalation_id}: {error}\n")
            return REFUSED
        except StorageUnavailableError as error:
            sys.stderr.write(f"{error}\n")
            return UNREACHABLE
        finally:
            await database.close()

    return asyncio.run(work())


async def _do(escalations: Escalations, arguments: argparse.Namespace) -> int:
    if arguments.action == "list":
        states = (OPEN, CLAIMED, RESOLVED) if arguments.all else (OPEN, CLAIMED)
        return _show(await escalations.latest(arguments.limit, states), arguments.output)
    act = escalations.claim if arguments.action == "claim" else escalations.resolve
    done = await act(arguments.escalation_id, arguments.person)
    sys.stdout.write(f"{done.escalation_id} {done.state}\n")
    return OK


def _show(found: Sequence[Escalation], output: str) -> int:
    if output == "json":
        print_json(found)
        return OK
    table = [("ESCALATION", "CONVERSATION", "TURN", "REASON", "INTENT", "STATE", "BY", "SINCE")]
    for one in found:
        since = one.created_at.isoformat(timespec="seconds")
        by = one.claimed_by or "-"
        table.append(
            (one.escalation_id, one.conversation_id, str(one.turn), one.reason, one.intent, one.state, by, since)
        )
    print_table(table)
    return OK
