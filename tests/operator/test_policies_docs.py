"""docs/operations.md knows every reason, metric and flag there is."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from supportfleet_operator.api import ISTIO
from supportfleet_operator.metrics import Metrics
from supportfleet_operator.reconcile import policies
from supportfleet_operator.reconcile.policies.model_reasons import REMEDIES
from supportfleet_operator.rollout import reasons as rollout_reasons
from supportfleet_operator.settings import parser

TEXT = (Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()
INTERNAL = {"Progressing", "NewReplicaSetAvailable", "CreateContainerConfigError", "ErrImagePull", "AutoscalerPending"}
INTERNAL |= {ISTIO}


def reasons() -> set[str]:
    """Every reason that a policy or a rollout can give."""
    found = {"NameTaken", "BeingReplaced", "FieldConflict", "Refused", "Forbidden", "Available", "Progressing"}
    for info in pkgutil.iter_modules(policies.__path__):
        module = importlib.import_module(f"{policies.__name__}.{info.name}")
        values: list[Any] = [
            value for name, value in vars(module).items() if name.isupper() and not name.startswith("_")
        ]
        found |= {value for value in values if isinstance(value, str) and re.fullmatch(r"([A-Z][a-z]+){1,4}", value)}
    found |= {value for name, value in vars(rollout_reasons).items() if name.isupper() and isinstance(value, str)}
    return found - INTERNAL


@pytest.mark.parametrize("reason", sorted(reasons() | set(REMEDIES)))
def test_every_reason_is_explained(reason: str) -> None:
    """Whoever sees a reason finds it, with its remedy."""
    assert f"`{reason}`" in TEXT


def test_every_metric_is_listed() -> None:
    """Names in the documentation are those that are exported."""
    metrics = Metrics()
    for name in ("supportfleet_queue_depth", "supportfleet_watch_last_event_age_seconds"):
        metrics.read(name, "x", "", list)
    exported = set(re.findall(r"^# HELP (supportfleet_\w+)", generate_latest(metrics.registry).decode(), re.MULTILINE))
    assert exported
    for name in exported:
        assert name.removesuffix("_created") in TEXT


def test_every_flag_is_listed() -> None:
    """Flags and their variables."""
    run = parser({})._subparsers._group_actions[0].choices["run"]  # type: ignore[union-attr, index]
    for action in run._actions:
        for flag in action.option_strings:
            if flag not in ("-h", "--help"):
                assert f"`{flag}`" in TEXT
        for variable in re.findall(r"\$([A-Z_]+)", action.help or ""):
            assert f"`{variable}`" in TEXT
