"""DATABASE_URL, parsed once: what kind of database, and what its driver is told.

The customary spellings are understood (``postgres://`` as hosting providers write it, ``postgresql://``, and
SQLAlchemy's ``+asyncpg`` and ``+aiosqlite``), with libpq's parameters such as ``sslmode``. Pure: nothing is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

POSTGRESQL_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
SQLITE_SCHEMES = frozenset({"sqlite", "sqlite+aiosqlite"})
# Settings of libpq, the C client, which asyncpg would pass on to a server that doesn't know them.
CLIENT_ONLY_PARAMETERS = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "pgbouncer",
        "pool_timeout",
        "tcp_user_timeout",
    }
)


class DatabaseKind(StrEnum):
    """The databases that are supported."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True)
class DatabaseUrl:
    """Where the database is. ``target`` is a file's path or a PostgreSQL DSN, which may hold a password."""

    kind: DatabaseKind
    target: str = field(repr=False)


def parse_database_url(url: str) -> DatabaseUrl:
    """Understand ``url``; a ``ValueError`` says what is wrong without repeating it, since it may hold a password."""
    parts = urlsplit(url.strip())
    if parts.scheme in SQLITE_SCHEMES:
        return DatabaseUrl(DatabaseKind.SQLITE, _sqlite_path(parts.netloc, unquote(parts.path), parts.query))
    if parts.scheme in POSTGRESQL_SCHEMES:
        query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in CLIENT_ONLY_PARAMETERS]
        _ = parts.port  # raises ValueError where it is no port number
        dsn = f"postgresql://{parts.netloc}{parts.path}"
        return DatabaseUrl(DatabaseKind.POSTGRESQL, f"{dsn}?{urlencode(query)}" if query else dsn)
    raise ValueError("it is neither a PostgreSQL nor an SQLite address")


def _sqlite_path(netloc: str, path: str, query: str) -> str:
    if netloc or not path.startswith("/"):
        raise ValueError("an SQLite address has three slashes before a relative path and four before an absolute one")
    if query:
        raise ValueError("an SQLite address takes no parameters")
    if path[1:] in {"", ":memory:"}:
        raise ValueError("a database in memory would forget accepted messages: name a file")
    return str(Path(path[1:]))
