"""Which database a process uses, where none is configured too."""

from __future__ import annotations

import structlog

from supportfleet_runtime.config import Settings, default_database_path
from supportfleet_runtime.storage.url import DatabaseKind, DatabaseUrl, parse_database_url

log = structlog.get_logger()


def database_url(settings: Settings) -> DatabaseUrl:
    """The database that is configured, or a file where one can be written."""
    if settings.database_url is not None:
        return parse_database_url(settings.database_url.get_secret_value())
    path, lasting = default_database_path()
    if lasting:
        log.info("database_defaulted", path=str(path))
    else:
        log.warning("database_is_temporary", path=str(path), remedy="set DATABASE_URL, or give it a writable folder")
    return DatabaseUrl(DatabaseKind.SQLITE, str(path))
