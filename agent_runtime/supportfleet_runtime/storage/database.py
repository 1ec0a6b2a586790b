"""The database: SQLite or PostgreSQL, and transactions that fail in one way.

A transaction is a plain function of a SQLAlchemy connection, given to ``write`` or ``read``, so the same code runs on
both. On PostgreSQL it runs in SQLAlchemy's asyncio engine over asyncpg. On SQLite it runs as a whole in a thread: with
aiosqlite, which takes each cursor operation to a thread and back, a message took fifty such trips and twice the
processor time.

Whatever goes wrong with the connection, the server or the time limit is a ``StorageUnavailableError``, which callers
may try again; anything else is a ``StorageError``.

SQLite runs in WAL mode with ``synchronous=FULL``: what was committed survives a power cut. One thread writes, so
writers wait for each other in a queue and not in SQLite's busy loop, and takes the file's lock at the start (``BEGIN
IMMEDIATE``), so that reading first and writing then can't fail half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from supportfleet_runtime.errors import StorageError, StorageUnavailableError
from supportfleet_runtime.storage.url import DatabaseKind, DatabaseUrl

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What is done in a transaction. It may be done twice, so it changes nothing but the database."""

IMMEDIATE: Final = "supportfleet_immediate"
APPLICATION_NAME: Final = "supportfleet-runtime"
READERS: Final = 4
RECYCLE_SECONDS: Final = 1800
ATTEMPTS: Final = 3
ROLLED_BACK: Final = "40"
"""SQLSTATE's class for transactions that the server undid: a deadlock, a conflict of isolation."""
# Classes of SQLSTATE that trying again may cure, some of them once somebody has mended the server.
PASSING_SQLSTATES: Final = MappingProxyType(
    {
        "08": "the connection broke",
        "28": "it refuses the user or the password",
        "3D": "there is no such database",
        "40": "it rolled back, in favour of another transaction",
        "53": "it is short of connections, memory or disk",
        "55P03": "a lock is held elsewhere",
        "57": "it is shutting down, or ended the statement",
        "58": "its system fails",
    }
)


class _Backend(Protocol):
    async def write(self, work: Work[T]) -> T: ...
    async def read(self, work: Work[T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """A database. Nothing is opened before the first use."""

    def __init__(self, url: DatabaseUrl, *, pool: int = 20, timeout: float = 5.0) -> None:
        self.url = url
        self.kind = url.kind
        self.timeout = timeout
        self._backend: _Backend = (
            _Sqlite(url.target, timeout) if url.kind is DatabaseKind.SQLITE else _Postgresql(url.target, pool, timeout)
        )

    async def write(self, work: Work[T]) -> T:
        """Do ``work`` in a transaction: committed at its end, rolled back where it raises."""
        with _errors_translated():
            return await self._backend.write(work)

    async def read(self, work: Work[T]) -> T:
        """Do ``work``, which only reads."""
        with _errors_translated():
            return await self._backend.read(work)

    async def close(self) -> None:
        """Close all connections."""
        await self._backend.close()


class _Sqlite:
    """One thread that writes, a few that read."""

    def __init__(self, path: str, timeout: float) -> None:
        self._engine = _sqlite_engine(path, timeout)
        self._immediate = self._engine.execution_options(**{IMMEDIATE: True})
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")

    async def write(self, work: Work[T]) -> T:
        def run() -> T:
            with self._immediate.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._writer, run)

    async def read(self, work: Work[T]) -> T:
        def run() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def close(self) -> None:
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()


class _Postgresql:
    """SQLAlchemy's asyncio engine over asyncpg.

    A pooled connection may have been broken since its last use. Asking each before use costs three trips to the server;
    instead the work is done once more on a new connection, unless it broke while committing, when nobody knows. A
    transaction that the server rolled back in favour of another (a deadlock) is done once more, too.
    """

    def __init__(self, dsn: str, pool: int, timeout: float) -> None:
        self._engine = _postgresql_engine(dsn, pool, timeout)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")  # saves BEGIN and ROLLBACK

    async def write(self, work: Work[T]) -> T:
        for _ in range(ATTEMPTS - 1):
            committing = False
            try:
                async with self._engine.connect() as connection, connection.begin():
                    result = await connection.run_sync(work)
                    committing = True
            except DBAPIError as error:
                is_undone = _sqlstate(error).startswith(ROLLED_BACK)
                if not is_undone and (committing or not error.connection_invalidated):
                    raise
            else:
                return result
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def read(self, work: Work[T]) -> T:
        try:
            async with self._reading.connect() as connection:
                return await connection.run_sync(work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


@contextlib.contextmanager
def _errors_translated() -> Iterator[None]:
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
    if sqlstate := _sqlstate(error):
        return sqlstate.startswith(tuple(PASSING_SQLSTATES))
    return type(error).__name__ in {"OperationalError", "InterfaceError"}


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _summary(error: DBAPIError) -> str:
    """What happened, without the driver's text, which may quote a row."""
    code = _sqlstate(error) or getattr(error.orig, "sqlite_errorname", None)
    known = next((text for start, text in PASSING_SQLSTATES.items() if str(code).startswith(start)), None)
    reason = known or type(error).__name__
    return f"the database refused: {reason}" + (f" ({code})" if code else "")


def _as_json(value: object) -> str:
    return orjson.dumps(value).decode()  # a quarter of the time that the standard library takes


def _sqlite_engine(path: str, timeout: float) -> Engine:
    with contextlib.suppress(OSError):  # opening the file will say what is wrong
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=READERS + 1,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        hide_parameters=True,
        json_serializer=_as_json,
        connect_args={"timeout": timeout, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver begins no transaction of its own (isolation_level None), and a single SELECT needs none.
        if connection.get_execution_options().get(IMMEDIATE):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(dsn: str, pool: int, timeout: float) -> AsyncEngine:
    import asyncpg  # noqa: PLC0415 - an agent on SQLite does without

    async def connect() -> Any:
        settings = {"application_name": APPLICATION_NAME, "idle_in_transaction_session_timeout": "60000"}
        return await asyncpg.connect(dsn, timeout=timeout, command_timeout=timeout, server_settings=settings)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        pool_recycle=RECYCLE_SECONDS,
        hide_parameters=True,
        json_serializer=_as_json,
    )
