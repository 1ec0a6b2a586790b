"""The contract of idempotency keys, on PostgreSQL: many processes claim them at the same time."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

_contract = runpy.run_path(str(Path(__file__).parents[1] / "agent_runtime" / "test_gateway_idempotency.py"))
desk, another = _contract["desk"], _contract["another"]

pytestmark = pytest.mark.services


class TestIntake(_contract["TestIntake"]):  # type: ignore[misc]  # loaded by its path
    test_without_a_key_it_costs_nothing = None
    """SQLite's alone: it listens to that engine."""
