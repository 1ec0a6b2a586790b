"""Tools and their ledger on a real PostgreSQL: what holds on SQLite holds here, and between processes.

The classes taken over below are the unit tier's own, run here with the fixtures of this folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supportfleet_runtime.storage.database import Database
from supportfleet_runtime.storage.tool_tables import refunds, tool_effects
from supportfleet_runtime.storage.url import parse_database_url

UNIT = Path(__file__).parents[1] / "agent_runtime"
SHOP = SimpleNamespace(**runpy.run_path(str(UNIT / "tools_shop.py")))
TAKEN_OVER = {
    "test_tools_effects.py": ("shop", "TestTheLedger", "TestTheNextAttempt"),
    "test_tools_crash.py": ("test_killed_in_the_middle",),
}
for _file, _names in TAKEN_OVER.items():
    _module = runpy.run_path(str(UNIT / _file))
    globals().update({name: _module[name] for name in _names})

PODS = 4
ROUNDS = 10


@pytest.fixture
async def pods(database: Database, database_url: str, clock: Any) -> AsyncIterator[Sequence[Any]]:
    """Agents as in pods of their own: each with its own connections."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [database, *(Database(parse_database_url(database_url)) for _ in range(PODS - 1))]
        for one in opened[1:]:
            stack.push_async_callback(one.close)
        yield [SHOP.make_shop(one, clock) for one in opened]


class TestPods:
    async def test_the_same_call_everywhere_at_once(self, pods: Sequence[Any]) -> None:
        """One message that many pods work at the same moment pays back once, and every pod is told so."""
        for number in range(ROUNDS):
            calls = [pod.refund(f"task_{number}", amount=1) for pod in pods for _ in range(2)]
            assert {result.status for result in await asyncio.gather(*calls)} == {"done"}
            assert await pods[0].paid() == (number + 1) * 100
        assert await pods[0].count(refunds) == await pods[0].count(tool_effects) == ROUNDS

    async def test_other_amounts_under_one_key(self, pods: Sequence[Any]) -> None:
        """Of many amounts for one key at the same moment one is paid, and all others are refused."""
        for number in range(ROUNDS):
            before = await pods[0].paid()
            amounts = range(1, len(pods) + 1)
            calls = [
                pod.refund(f"task_{number}", amount=amount / 10) for pod, amount in zip(pods, amounts, strict=True)
            ]
            statuses = [result.status for result in await asyncio.gather(*calls)]
            assert Counter(statuses) == {"done": 1, "refused": len(pods) - 1}
            assert await pods[0].paid() - before == amounts[statuses.index("done")] * 10
