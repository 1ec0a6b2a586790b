"""Whether the process is ready, and why not: one line for each thing it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text

from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.storage.database import Database

CHECK_SECONDS: Final = 0.8
"""Less than the second after which a probe gives up, so that it learns why."""

Check = Callable[[], Awaitable[str | None]]
"""What is wrong; ``None`` where nothing is."""


@dataclass(frozen=True)
class Readiness:
    """The outcome of all checks: for each what is wrong with it, or nothing."""

    problems: Mapping[str, str | None]

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.problems.values())

    def as_json(self) -> dict[str, Any]:
        """What the endpoint answers."""
        checks = {name: {"ok": not problem, "message": problem or "ok"} for name, problem in self.problems.items()}
        return {"status": "ready" if self.ready else "not ready", "checks": checks}


async def check(checks: Mapping[str, Check]) -> Readiness:
    """Run all checks at once, none of them for long."""
    found = await asyncio.gather(*(_bounded(one) for one in checks.values()))
    return Readiness(dict(zip(checks, found, strict=True)))


def database_check(database: Database) -> Check:
    """Whether the database answers."""

    async def run() -> str | None:
        await database.read(lambda connection: connection.execute(text("SELECT 1")))
        return None

    return run


async def _bounded(one: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await one()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except SupportfleetError as error:
        return str(error)
