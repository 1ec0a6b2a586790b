"""The command ``erase``: remove one customer's data, and say what was removed.

It may be interrupted, and run again: it goes on where it was, and a run after the last removes nothing. The customer's
id appears in no output. Exit codes: 0 done, 1 not done (not confirmed, or the customer keeps writing), 3 the database
or Redis is out of reach.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Final

import orjson

from supportfleet_runtime import config
from supportfleet_runtime.clock import utc_now
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import StorageUnavailableError
from supportfleet_runtime.memories import make_memory
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.erasure import Erased, Erasure

OK, NOT_DONE, UNREACHABLE = 0, 1, 3
LONGEST_ID: Final = 128
SETTLE_SECONDS: Final = 1.0
"""A worker writes what it has committed into Redis within milliseconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add its own arguments."""
    parser.add_argument("--customer", required=True, type=_customer, metavar="ID", help="whose data")
    parser.add_argument("--yes", action="store_true", help="don't ask whether it is meant")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit code."""
    settings = config.load(os.environ).settings
    if not (arguments.yes or _is_meant()):
        sys.stderr.write("nothing was erased: confirm it, or give --yes\n")
        return NOT_DONE

    async def work() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        memory = make_memory(settings)
        settle = SETTLE_SECONDS if settings.redis_url else 0.0
        erasure = Erasure(database, settings.scope, now=utc_now, pause=_wait, forget=memory.forget, settle=settle)
        try:
            return _tell(await erasure.erase(arguments.customer), arguments.output)
        except StorageUnavailableError as error:
            sys.stderr.write(f"{error}; run it again: it goes on where it was\n")
            return UNREACHABLE
        finally:
            await memory.close()
            await database.close()

    return asyncio.run(work())


def _is_meant() -> bool:
    if not sys.stdin.isatty():
        return False
    sys.stderr.write("This customer's conversations are removed for good. Erase them? [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


async def _wait(seconds: float) -> None:
    if seconds > 1:
        sys.stderr.write(f"a message is being worked: waiting {seconds:.0f} s until that has ended\n")
    await asyncio.sleep(seconds)


def _tell(erased: Erased, output: str) -> int:
    if output == "json":
        told = {
            "finished": erased.finished,
            "pseudonym": erased.pseudonym,
            "removed": dict(erased.removed),
            "pseudonymised": dict(erased.pseudonymised),
        }
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n")
    else:
        _write("removed", erased.removed)
        _write("kept without the customer", erased.pseudonymised)
        if not (erased.removed or erased.pseudonymised):
            sys.stdout.write("there was nothing to erase\n")
    if not erased.finished:
        sys.stderr.write("the customer keeps writing: stop that, and run it again\n")
    return OK if erased.finished else NOT_DONE


def _write(what: str, counts: Mapping[str, int]) -> None:
    for table, number in sorted(counts.items()):
        sys.stdout.write(f"{what}: {number} {table}\n")


def _customer(given: str) -> str:
    if not 1 <= len(given) <= LONGEST_ID:
        raise argparse.ArgumentTypeError(f"it is not 1 to {LONGEST_ID} characters")
    return given
