from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

_history = runpy.run_path(str(Path(__file__).with_name("queue_history.py")))
Accepted, Ended, History, Refunds, faults = (
    _history[name] for name in ("Accepted", "Ended", "History", "Refunds", "faults")
)

ACCEPTED = [Accepted("t1", "c"), Accepted("t2", "c")]
FIRST, SECOND = Ended("t1", "c", 1, "done", 1.0), Ended("t2", "c", 2, "done", 2.0)


def test_a_right_history_has_no_faults() -> None:
    """What was accepted was answered once and in order; a worker killed before it could say so is no fault."""
    assert faults(History(ACCEPTED, [FIRST, SECOND], ["t1"])) == []


def test_poison_belongs_to_the_dead() -> None:
    """A task that no worker can do is right where it was given up."""
    dead = Ended("t2", "c", 2, "dead", 2.0)
    assert faults(History(ACCEPTED, [FIRST, dead], [], {"t2"})) == []


@pytest.mark.parametrize(
    ("ended", "stored", "poison"),
    [
        ([FIRST], [], ()),
        ([FIRST, Ended("t2", "c", 2, "leased", None)], [], ()),
        ([FIRST, Ended("t2", "c", 2, "done", None)], [], ()),
        ([FIRST, SECOND, SECOND], [], ()),
        ([FIRST, SECOND], ["t1", "t1"], ()),
        ([FIRST, Ended("t2", "c", 2, "done", 0.5)], [], ()),
        ([FIRST, Ended("t2", "c", 2, "dead", 2.0)], [], ()),
        ([FIRST, SECOND], [], {"t2"}),
    ],
    ids=["lost", "unfinished", "unanswered", "doubled", "answered-twice", "out-of-order", "given-up", "poison-done"],
)
def test_each_fault_is_found(ended: Any, stored: Any, poison: Any) -> None:
    """The checker sees each thing that could go wrong."""
    assert faults(History(ACCEPTED, ended, stored, poison))


@pytest.mark.parametrize(
    ("paid", "ledger"),
    [(["A-1"], "done"), ([], None), ([], "refused"), ([], "pending"), (["A-1"], "ambiguous"), ([], "ambiguous")],
    ids=["paid", "never-asked", "refused", "never-arrived", "paid-perhaps", "not-paid-perhaps"],
)
def test_a_refund_that_is_right(paid: list[str], ledger: str | None) -> None:
    """An order is paid back once, and known to be; or not at all; of what is ambiguous nobody claims anything."""
    refunds = Refunds({"t1": "A-1"}, paid, {"t1": ledger} if ledger else {})
    assert faults(History(ACCEPTED, [FIRST, SECOND], [], refunds=refunds)) == []


@pytest.mark.parametrize(
    ("paid", "ledger"),
    [(["A-1", "A-1"], "done"), (["A-1", "A-2"], "done"), ([], "done"), (["A-1"], "pending"), (["A-1"], "refused")],
    ids=["doubled", "unasked", "only-said", "forgotten", "denied"],
)
def test_a_refund_that_is_wrong(paid: list[str], ledger: str) -> None:
    """Money that moved twice, unasked or unknown to the ledger is a fault, and so is what only the ledger paid."""
    refunds = Refunds({"t1": "A-1"}, paid, {"t1": ledger})
    assert faults(History(ACCEPTED, [FIRST, SECOND], [], refunds=refunds))
