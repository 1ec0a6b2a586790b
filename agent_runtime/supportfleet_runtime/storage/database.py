"""The database: one engine for SQLite or PostgreSQL, and transactions that fail in one way.

``write()`` is a transaction, ``read()`` a connection to read with. Whatever goes wrong with the connection, the server
or the time limit is a ``StorageUnavailableError``, which callers may try again; anything else is a ``StorageError``.

SQLite runs in WAL mode with ``synchronous=FULL``: what was committed survives a power cut. Its writers take turns
inside the process (a lock costs less than SQLite's busy loop) and take the file's lock at the start (``BEGIN
IMMEDIATE``), so that reading first and writing then can't fail half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from supportfleet_runtime.errors import StorageError, StorageUnavailableError
from supportfleet_runtime.storage.url import DatabaseKind, DatabaseUrl

IMMEDIATE: Final = "supportfleet_immediate"
APPLICATION_NAME: Final = "supportfleet-runtime"
# Classes of SQLSTATE that trying again may cure: connection, rollback (deadlock), resources, operator, system, locks.
PASSING_SQLSTATES: Final = ("08", "40", "53", "57", "58", "55P03")


class Database:
    """A pool of connections. Nothing is opened before the first use."""

    def __init__(self, url: DatabaseUrl, *, pool: int = 20, timeout: float = 5.0) -> None:
        self.kind = url.kind
        self.url = url
        self.timeout = timeout
        self._writers = asyncio.Lock() if url.kind is DatabaseKind.SQLITE else None
        if url.kind is DatabaseKind.SQLITE:
            self._engine = _sqlite_engine(url.target, pool, timeout)
        else:
            self._engine = _postgresql_engine(url.target, pool, timeout)

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back on an exception."""
        async with (
            _errors_translated(),
            self._writers or contextlib.nullcontext(),
            self._engine.connect() as connection,
        ):
            await connection.execution_options(**{IMMEDIATE: True})
            async with connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with."""
        async with _errors_translated(), self._engine.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextlib.asynccontextmanager
async def _errors_translated() -> AsyncIterator[None]:
    try:
        yield
    except DBAPIError as error:
        kind = StorageUnavailableError if _is_passing(error) else StorageError
        raise kind(_summary(error)) from error
    except (PoolTimeoutError, OSError, TimeoutError) as error:
        raise StorageUnavailableError(f"the database can't be reached: {type(error).__name__}") from error
    except SQLAlchemyError as error:
        raise StorageError(f"the database refused: {type(error).__name__}") from error
    except Exception as error:
        if type(error).__module__.startswith("asyncpg"):  # raised while connecting, before SQLAlchemy can wrap it
            raise StorageUnavailableError(f"PostgreSQL refused the connection: {type(error).__name__}") from error
        raise


def _is_passing(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(PASSING_SQLSTATES)
    return type(error).__name__ in {"OperationalError", "InterfaceError"}


def _summary(error: DBAPIError) -> str:
    """What happened, without the driver's text, which may quote a row."""
    sqlstate = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None)
    return f"the database refused: {type(error).__name__}" + (f" ({sqlstate})" if sqlstate else "")


def _sqlite_engine(path: str, pool: int, timeout: float) -> AsyncEngine:
    with contextlib.suppress(
        OSError
    ):  # opening the file will say what is wrong, and say it again when it is asked again
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=pool,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={"timeout": timeout, "isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver begins no transaction of its own (isolation_level None); a single SELECT needs none.
        if connection.get_execution_options().get(IMMEDIATE):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(dsn: str, pool: int, timeout: float) -> AsyncEngine:
    import asyncpg  # noqa: PLC0415 - an agent on SQLite does without

    async def connect() -> Any:
        return await asyncpg.connect(
            dsn,
            timeout=timeout,
            command_timeout=timeout,
            server_settings={
                "application_name": APPLICATION_NAME,
                "idle_in_transaction_session_timeout": "60000",
            },
        )

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        pool_pre_ping=True,
        pool_recycle=1800,
        hide_parameters=True,
    )
