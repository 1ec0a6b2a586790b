from __future__ import annotations

import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supportfleet_runtime.queue.worker import Pauses

_benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "poison.py"))
run, problems, Result, TRIES = (_benchmark[name] for name in ("run", "problems", "Result", "TRIES"))

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


@pytest.mark.parametrize(
    "changes",
    [
        {"states": Counter(done=8, dead=2)},
        {"states": Counter(done=9)},
        {"lost": 1},
        {"twice": 1},
        {"dead_tries": Counter({TRIES - 1: 1})},
        {"poison_dead": 0},
        {"p99": 1.0},
    ],
)
def test_what_else_becomes_of_messages_is_wrong(changes: dict[str, Any]) -> None:
    """The benchmark's checker names whatever is not as it has to be."""
    fine = Result(Counter(done=9, dead=1), 0, 0, Counter({TRIES: 1}), poison_dead=1, p50=0.05, p99=0.1)
    assert problems(fine, 10, 1, calm=0.1) == []
    assert problems(replace(fine, **changes), 10, 1, calm=0.1)
