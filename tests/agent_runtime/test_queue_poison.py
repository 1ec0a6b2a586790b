from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from supportfleet_runtime.queue.worker import Pauses

_benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "poison.py"))
run, TRIES = _benchmark["run"], _benchmark["TRIES"]

MESSAGES, POISON, RATE = 1000, 100, 120.0
BRIEF = Pauses(first=0.2, longest=1.6)


@pytest.mark.timeout(300)
async def test_poison_delays_and_loses_nothing() -> None:
    """Of 1,000 messages the 100 that no worker can do are dead letters after their tries, and the others are answered.

    Each has one reply, and the slowest hundredth of the others is about as slow as in a run without poison.
    """
    _benchmark["say_nothing"]()
    without = await run(MESSAGES, 0, RATE, BRIEF)
    found = await run(MESSAGES, POISON, RATE, BRIEF)
    assert (found.states, found.lost, found.twice) == ({"done": MESSAGES - POISON, "dead": POISON}, 0, 0)
    assert (found.poison_dead, found.dead_tries) == (POISON, {TRIES: POISON})
    assert found.p99 < 3 * without.p99 + 0.5, "half a second is for a machine that does something else as well"
