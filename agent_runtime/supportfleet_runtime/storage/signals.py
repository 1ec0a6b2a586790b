"""Telling other processes that something happened: PostgreSQL's LISTEN/NOTIFY, nothing on SQLite.

A signal only saves waiting: whoever waits also looks by itself once a second, so a lost one (a connection that broke, a
pooler that doesn't pass them on) costs a second and no message. They are sent within a transaction and arrive when it
commits. None are sent for what the sending process does itself, so a fleet is not woken for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Connection, text

from supportfleet_runtime.storage.url import DatabaseKind, DatabaseUrl

log = structlog.get_logger()

CHANNEL: Final = "supportfleet"
WORK: Final = "work"
"""Messages wait in a queue; the subject is its name."""
DONE: Final = "done"
"""Tasks have ended; the subject is their ids, separated by commas."""
WATCHED: Final = "watched"
"""Conversations that a process watches for its customers; the subject is its own token, then their ids."""
CHANGED: Final = "changed"
"""Conversations that another process watches have changed; the subject is their ids."""
IDS_IN_ONE: Final = 200  # PostgreSQL's payloads end at 8,000 bytes; an id is 31
RECONNECT_PAUSE: Final = 2.0


def send(connection: Connection, kind: str, subjects: Sequence[str]) -> None:
    """Send with the transaction of ``connection``."""
    if connection.dialect.name != "postgresql":
        return
    for start in range(0, len(subjects), IDS_IN_ONE):
        payload = f"{kind} {','.join(subjects[start : start + IDS_IN_ONE])}"
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})


async def listen(url: DatabaseUrl, patience: float, hear: Callable[[str, str], None]) -> None:
    """Call ``hear(kind, subject)`` for each signal, for ever; a broken connection is made again."""
    if url.kind is not DatabaseKind.POSTGRESQL:
        return
    import asyncpg  # noqa: PLC0415 - an agent on SQLite does without

    def received(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        kind, _, subject = str(payload).partition(" ")
        hear(kind, subject)

    while True:
        lost = asyncio.Event()
        try:
            connection: Any = await asyncpg.connect(url.target, timeout=patience, command_timeout=patience)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.info("signals_unavailable", reason=type(error).__name__)
            await asyncio.sleep(RECONNECT_PAUSE)
            continue
        try:
            connection.add_termination_listener(lambda _connection, lost=lost: lost.set())
            await connection.add_listener(CHANNEL, received)
            await lost.wait()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.info("signals_unavailable", reason=type(error).__name__)
        finally:
            connection.terminate()
        await asyncio.sleep(RECONNECT_PAUSE)
