"""Argo CD's health check of a SupportAgent, run as Lua as Argo CD runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

CONFIG = Path(__file__).parents[2] / "manifests" / "argocd" / "argocd-cm.yaml"
CHECK: str = yaml.safe_load(CONFIG.read_text())["data"]["resource.customizations.health.supportfleet.dev_SupportAgent"]


def health(agent: dict[str, Any]) -> str:
    """The health that Argo CD would show."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(agent, recursive=True)
    answer = lua.execute(CHECK)
    assert answer.message
    return str(answer.status)


def agent(*conditions: tuple[str, str, str], generation: int = 2, observed: int | None = 2) -> dict[str, Any]:
    found = [{"type": kind, "status": status, "reason": why, "message": "said"} for kind, status, why in conditions]
    status = {"conditions": found, **({} if observed is None else {"observedGeneration": observed})}
    return {"metadata": {"generation": generation}, "status": status}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"metadata": {"generation": 1}}, "Progressing"),
        (agent(observed=None), "Progressing"),
        (agent(("Ready", "True", "Available"), observed=1), "Progressing"),
        (agent(("Stalled", "True", "DigestMismatch"), observed=1), "Progressing"),
        (agent(), "Progressing"),
        (agent(("Ready", "False", "Progressing"), ("Reconciling", "True", "Progressing")), "Progressing"),
        (agent(("Ready", "True", "Available"), ("Accepted", "True", "Valid")), "Healthy"),
        (agent(("Ready", "False", "DigestMismatch"), ("Stalled", "True", "DigestMismatch")), "Degraded"),
        (agent(("Ready", "False", "Suspended")), "Suspended"),
        (agent(("Ready", "False", "ReasonOfAFutureVersion")), "Progressing"),
    ],
)
def test_the_health_follows_ready_stalled_and_the_generation(seen: dict[str, Any], expected: str) -> None:
    """Only what the operator has seen counts; Stalled is Degraded, Ready Healthy, everything else on its way."""
    assert health(seen) == expected
