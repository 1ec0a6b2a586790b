"""kill -9 in the middle of a refund: the next attempt neither loses nor repeats it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import refunds

HERE = Path(__file__).parent
SHOP = SimpleNamespace(**runpy.run_path(str(HERE / "tools_shop.py")))


@pytest.mark.parametrize("place", ["in-process", "service"])
@pytest.mark.parametrize("moment", ["key", "call"])
async def test_killed_in_the_middle(
    database: Database, database_url: str, clock: Any, tmp_path: Path, place: str, moment: str
) -> None:
    """Killed once the key was saved, or once the call was made: one effect, and the next attempt knows of it."""
    async with contextlib.AsyncExitStack() as stack:
        url = ""
        if place == "service":
            url = await stack.enter_async_context(SHOP.tool_service(database_url, clock, str(tmp_path)))
        command = (sys.executable, str(HERE / "tools_victim.py"), url, database_url, "task_1", moment)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        victim = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(victim.wait(), 60) == -signal.SIGKILL
        shop = SHOP.make_shop(database, clock, url=url or None)
        assert await shop.states() == {"task_1": "pending"}
        told = await shop.tools.earlier(SHOP.authority(), within=5)
        assert [result.status for result in told] == (["done"] if moment == "call" else [])
        assert (await shop.refund()).status == "done"
        assert await shop.states() == {"task_1": "done"}
        assert (await shop.count(refunds), await shop.paid()) == (1, 1000)
        await shop.tools.close()
