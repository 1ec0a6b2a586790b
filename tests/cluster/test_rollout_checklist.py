"""The checklist on a real API server: its Job is admitted, that one's verdict is understood, and traffic waits."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HELPER = runpy.run_path(str(Path(__file__).parent / "rollout_desk.py"))
ROLLOUT, REVISION = HELPER["ROLLOUT"], HELPER["REVISION"]
history, weights = HELPER["history"], HELPER["weights"]
FAILED = {"reason": "ChecklistFailed", "message": "models FAIL: CLAUDE_MODEL (claude-x): there is no such model"}
INCOMPLETE = {"reason": "ChecklistIncomplete", "message": "queue ERROR: the database is out of reach"}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("database")]


@pytest.fixture
def desk(istio: None, desk: Any) -> Any:
    """An agent with a checklist, whose retries have time enough."""
    desk.spec["rollout"] = {**ROLLOUT, "checklist": {}, "progressDeadlineSeconds": 120}
    return desk


def jobs(place: Any, revision: str) -> list[str]:
    found = (one["metadata"] for one in place.list("jobs"))
    return [one["name"] for one in found if one["labels"].get(REVISION) == revision]


def test_the_first_revision_is_held(desk: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]) -> None:
    """With pods that are ready the agent's Service leads to none of them until the checks have passed."""
    with kubelet.told(checklist_report=INCOMPLETE):
        desk.apply("agent:1")
        eventually(lambda: INCOMPLETE["message"] in desk.state.get("message", ""), "it says what is not known", 40)
        assert place.reason(desk.name) == "AwaitingChecklist"
        canary = desk.state["canaryRevision"]
        assert desk.ready(canary) == 4
        (job,) = jobs(place, canary)
        assert place.get("services", desk.name)["spec"]["selector"][REVISION] != canary
        assert place.get("virtualservices", desk.name) is None
    eventually(lambda: place.is_ready(desk.name), "the Job's next try passes", 60)
    assert desk.shares == {canary: 100}
    eventually(lambda: place.get("jobs", job) is None, "the Job goes")


def test_what_fails_is_rolled_back(desk: Any, place: Any, kubelet: Any, eventually: Callable[..., Any]) -> None:
    """It never has a share, the reason is in the status, the Job stays for its log, and retry makes another."""
    first = desk.started()
    with kubelet.told(checklist_report=FAILED), history(place, desk.name) as seen:
        desk.apply("agent:2")
        eventually(lambda: place.reason(desk.name) == "RolledBack", "it is rolled back", 40)
        assert FAILED["message"] in place.condition(desk.name, "Ready")["message"]
        eventually(lambda: desk.state["phase"] == "RolledBack", "its pods go", 40)
        assert desk.shares == {first: 100}
        failed = desk.state["failedRevision"]
        (job,) = jobs(place, failed)
    assert set(weights(seen)) <= {0}
    desk.ask("retry", failed)
    assert desk.at_pause() == failed
    assert desk.shares == {first: 80, failed: 20}
    assert jobs(place, failed) != [job]
