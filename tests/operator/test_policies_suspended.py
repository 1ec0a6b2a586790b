"""Agents that are stopped on purpose."""

from __future__ import annotations

from typing import Any

from supportfleet_operator.reconcile.policies import suspended


def test_it_is_neither_progress_nor_trouble(world: Any) -> None:
    """The reason says that it was wished."""
    finding = suspended.check(world(suspend=True).view())
    assert (finding.reason, finding.stalled) == ("Suspended", False)
    assert suspended.check(world().view()) is None
