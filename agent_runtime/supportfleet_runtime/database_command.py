"""What the commands share that read and change the database: opening it, and what they exit with."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from supportfleet_runtime import config
from supportfleet_runtime.database_location import database_url
from supportfleet_runtime.errors import ConflictError, NotFoundError, StorageUnavailableError
from supportfleet_runtime.storage.database import Database

OK, REFUSED, UNREACHABLE = 0, 1, 3


def run_on_database(work: Callable[[Database, str], Awaitable[int]], *, about: str = "") -> int:
    """Do work on the configured database, for the configured agent (its scope); the exit code.

    What the command is ``about`` is named where that is unknown, or in no state for it.
    """
    settings = config.load(os.environ).settings

    async def connected() -> int:
        database = Database(database_url(settings), pool=2, timeout=settings.db_timeout)
        try:
            return await work(database, settings.scope)
        except (NotFoundError, ConflictError) as error:
            sys.stderr.write(f"{about}: {error}\n")
            return REFUSED
        except StorageUnavailableError as error:
            sys.stderr.write(f"{error}\n")
            return UNREACHABLE
        finally:
            await database.close()

    return asyncio.run(connected())
