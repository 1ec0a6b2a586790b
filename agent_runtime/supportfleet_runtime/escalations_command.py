"""The command ``escalations``: list the calls for a person, take one, end it.

What customers wrote is not shown: ``GET /v1/conversations/{id}`` does that, for whoever may see it. Exit codes: 0 done,
1 the call is unknown, or another person's, 3 the database is out of reach.
"""

from __future__ import annotations

import argparse
import sys

from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.conversations.escalations import Escalation, Escalations
from supportfleet_runtime.database_command import OK, run_on_database
from supportfleet_runtime.listings import add_options, person, print_found
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.schema import CLAIMED, OPEN, RESOLVED

HEADING = ("ESCALATION", "CONVERSATION", "TURN", "REASON", "INTENT", "STATE", "BY", "SINCE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show those that wait for somebody or are claimed, the oldest first")
    listing.add_argument("--all", action="store_true", help="the resolved ones too")
    add_options(listing)
    for name, summary in (("claim", "take one: it is nobody else's then"), ("resolve", "end one that was claimed")):
        action = actions.add_parser(name, help=summary)
        action.add_argument("escalation_id", metavar="ESCALATION_ID")
        action.add_argument("--person", required=True, type=person, help="who does it")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""

    async def work(database: Database, scope: str) -> int:
        escalations = Escalations(database, scope, now=utc_now)
        if arguments.action == "list":
            states = (OPEN, CLAIMED, RESOLVED) if arguments.all else (OPEN, CLAIMED)
            print_found(await escalations.latest(arguments.limit, states), arguments.output, HEADING, _row)
            return OK
        act = escalations.claim if arguments.action == "claim" else escalations.resolve
        done = await act(arguments.escalation_id, arguments.person)
        sys.stdout.write(f"{done.escalation_id} {done.state}\n")
        return OK

    return run_on_database(work, about=getattr(arguments, "escalation_id", ""))


def _row(one: Escalation) -> tuple[str, ...]:
    since, by = one.created_at.isoformat(timespec="seconds"), one.claimed_by or "-"
    return (one.escalation_id, one.conversation_id, str(one.turn), one.reason, one.intent, one.state, by, since)
