"""Bringing the schema up to date.

Every pod does it when it starts, many at once: the first takes a lock (PostgreSQL: an advisory one; SQLite: the file's)
and migrates in one transaction, the others wait and find it done. A schema newer than this code is left alone: versions
only add (see ``migrations``), so an old pod works on until the roll-out replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Connection, Text, column, inspect, select, table, text

from supportfleet_runtime.errors import MigrationError, StorageError, StorageUnavailableError
from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.migrations import HEAD, VERSION_TABLE

log = structlog.get_logger()

ADVISORY_LOCK: Final = 0x53_46_4D_49_47  # any number that nothing else takes
LOCK_WAIT: Final = 60.0
RETRY_SECONDS: Final = 2.0
NOT_CHECKED: Final = "the database's schema is not checked yet"
FOLDER: Final = Path(__file__).parent / "migrations"

_version = table(VERSION_TABLE, column("version_num", Text))


async def migrate(database: Database) -> str:
    """Bring the schema up to date; its version afterwards."""
    found = await database.read(schema_version)
    if found is not None and found >= HEAD:
        return _accept(found)
    patient = Database(database.url, pool=2, timeout=max(LOCK_WAIT, database.timeout))
    try:
        return _accept(await patient.write(_migrate))
    except StorageUnavailableError:
        raise
    except Exception as error:
        raise MigrationError(f"the schema could not be brought from {found or 'nothing'} to {HEAD}") from error
    finally:
        await patient.close()


async def migrate_patiently(database: Database, tell: Callable[[str | None], None]) -> None:
    """The same, however long the database is away; ``tell`` learns what is in the way, and at the end that nothing is.

    So a process whose database is down at the start waits for it, and doesn't crash on it.
    """
    while True:
        try:
            await migrate(database)
        except StorageError as error:
            tell(str(error))
            log.warning("schema_not_ready", exc_info=error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            tell(None)
            return


def schema_version(connection: Connection) -> str | None:
    """The schema's version; ``None`` for an empty database."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(_version.c.version_num)).scalar_one_or_none()


def _migrate(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    found = schema_version(connection)
    if found is not None and found >= HEAD:
        return found
    _upgrade(connection)
    log.info("schema_migrated", before=found, after=HEAD)
    return HEAD


def _accept(found: str) -> str:
    if found > HEAD:
        log.warning("schema_is_newer", found=found, known=HEAD)
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - most starts find nothing to do, and save its 10 MB
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
