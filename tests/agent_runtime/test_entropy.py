"""Random bytes: none is given out twice."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from supportfleet_runtime.entropy import DRAWN, Pool
from supportfleet_runtime.storage.ids import first_id, new_id

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def test_none_is_given_out_twice() -> None:
    """However many threads ask, and however often the pool is filled again."""
    pool = Pool()
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: pool.take(10), range(5000)))
    assert {len(one) for one in given} == {10}
    assert len(set(given)) == len(given)


def test_all_of_them_can_be_asked_for() -> None:
    """A request as large as a draw is met."""
    assert len(Pool().take(DRAWN)) == DRAWN


FORKED = """
import os
from supportfleet_runtime.entropy import random_bytes
random_bytes(1)
child = os.fork()
os.write(1, random_bytes(16).hex().encode() + b" ")
if child:
    os.waitpid(child, 0)
os._exit(0)
"""


def test_a_forked_process_has_its_own() -> None:
    """A child gives out nothing that its parent does."""
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert len(set(done.stdout.split())) == 2


def test_identifiers_are_ulids() -> None:
    """The time in the first ten of 26 characters, and nothing below it in the least one of a moment."""
    made = new_id("task", MOMENT)
    assert made.startswith("task_01KDVDNA00")
    assert first_id("task", MOMENT) == "task_01KDVDNA00" + "0" * 16
    assert len(made) == len("task_") + 26
    assert len({new_id("task", MOMENT) for _ in range(1000)}) == 1000
