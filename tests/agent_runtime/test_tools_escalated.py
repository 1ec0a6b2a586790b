"""Refunds whose connection drops, by the runtime's own way from a message to a stored reply."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARK = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "effects.py")))
FAULTS = BENCHMARK.SHOP.Faults
REFUNDS = 60


@pytest.mark.parametrize("faults", [FAULTS.after_commit(1, 0.5), FAULTS.random(1, 0.5)], ids=["after-commit", "random"])
async def test_one_effect_or_a_person(faults: object) -> None:
    """Of 60 refunds over connections that drop each has one effect, or is ambiguous and has called a person."""
    verdicts = await BENCHMARK.refund_all(REFUNDS, faults)
    # On a machine that stands still for seconds a connection may not come about: then nothing was asked for.
    assert set(verdicts) - {BENCHMARK.NOT_ASKED} == BENCHMARK.ALLOWED
    assert verdicts[BENCHMARK.NOT_ASKED] < REFUNDS / 2
    assert verdicts.total() == REFUNDS


@pytest.mark.parametrize(
    ("paid", "state", "called"),
    [
        (2, "done", ()),
        (0, "done", ()),
        (1, "done", ("ambiguous",)),
        (2, "ambiguous", ("ambiguous",)),
        (1, "ambiguous", ()),
        (1, "ambiguous", ("",)),
        (1, "ambiguous", ("ambiguous", "ambiguous")),
        (1, "pending", ()),
        (1, None, ()),
        (0, None, ()),
    ],
)
def test_what_else_becomes_of_a_refund_is_wrong(paid: int, state: str | None, called: tuple[str, ...]) -> None:
    """The checker accepts one effect that is known, or one call for a person that says what is not known; no more."""
    assert BENCHMARK.judge(BENCHMARK.Ended(paid, state, called)) not in BENCHMARK.ALLOWED
