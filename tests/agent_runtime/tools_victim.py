"""A process that refunds, and is killed in the middle: ``python tools_victim.py URL DATABASE TASK MOMENT``.

``MOMENT``: ``key`` (the key is saved, the call not made yet) or ``call`` (it was made, its outcome not saved yet).
"""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.url import parse_database_url

SHOP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "tools_shop.py")))


class Deadly:
    """A backend before or after whose call the process ends."""

    available = True

    def __init__(self, inner: Any, moment: str) -> None:
        self.inner = inner
        self.moment = moment

    async def perform(self, request: Any, *, within: float) -> Any:
        if self.moment == "call":
            await self.inner.perform(request, within=within)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, database_url: str, task: str, moment: str) -> None:
    database = Database(parse_database_url(database_url))

    def now() -> datetime:
        return datetime.now(UTC)

    inner = SHOP.make_shop(database, now, url=url or None).backend
    await SHOP.make_shop(database, now, backend=Deadly(inner, moment)).refund(task)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
