"""The checklist before the first traffic, one story at a time."""

from __future__ import annotations

import datetime as dt
import runpy
from pathlib import Path
from typing import Any

import pytest

from supportfleet_operator.rollout import reasons
from supportfleet_operator.rollout.inputs import Scale

WORLD = runpy.run_path(str(Path(__file__).parent / "rollout_world.py"))
World, canary, rollout, ERRORS = (WORLD[name] for name in ("World", "canary", "rollout", "ERRORS"))

BETA = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
PAUSE: list[dict[str, Any]] = [{"pause": {}}]
STRATEGIES = {
    "Canary": canary(10, "60", 50, match=BETA, checklist={}),
    "mirror": canary([100], "60", 20, match=BETA, checklist={}),
    "Rolling": rollout(checklist={}),
    "BlueGreen": rollout(strategy="BlueGreen", match=BETA, steps=PAUSE, checklist={}),
    "ABTest": rollout(strategy="ABTest", match=BETA, steps=PAUSE, checklist={}),
}


def waiting(spec: Any, **more: Any) -> Any:
    """A world whose canary has all of its pods, and a checklist that runs."""
    world = World(spec=spec, sticky_seconds=60, **more).serve()
    world.checklist = "Running"
    world.change("r2")
    return world


def has_traffic(world: Any) -> bool:
    last = world.log[-1]
    return "r2" in {*last.weights, *last.sticky, last.matched, *(last.mirror or ())}


@pytest.mark.parametrize("spec", STRATEGIES.values(), ids=STRATEGIES)
class TestNoTrafficBefore:
    def test_it_waits_with_pods_that_are_ready(self, spec: Any) -> None:
        """No share, match, copy or conversation before it has passed; then the rollout goes on in the same decision."""
        world = waiting(spec)
        state = world.state
        assert not has_traffic(world)
        assert (state.phase, state.reason) == ("Starting", reasons.AWAITING_CHECKLIST)
        assert "models FAIL: HTTP 404" in state.message, "it says how far the checks are"
        world.checklist = "Passed"
        world.reconcile()
        assert world.state.checked == "r2"
        assert has_traffic(world)

    def test_a_person_who_holds_it_lets_nobody_in(self, spec: Any) -> None:
        """Paused and resumed, by an action or by the spec, it still has to pass first."""
        world = waiting(spec)
        world.act("pause", "r2")
        assert world.state.phase == "Paused"
        assert not has_traffic(world)
        world.act("resume", "r2")
        assert not has_traffic(world)
        world.spec = spec.model_copy(update={"paused": True})
        world.settle()
        assert not has_traffic(world)
        world.spec = spec
        world.settle()
        assert (world.state.phase, world.state.reason) == ("Starting", reasons.AWAITING_CHECKLIST)
        assert not has_traffic(world)

    def test_a_person_cannot_promote_past_it(self, spec: Any) -> None:
        """The event says how to go on without: the field is no part of the revision."""
        world = waiting(spec)
        world.act("promote", "r2")
        assert not has_traffic(world)
        (news,) = (one for decision in world.log for one in decision.news if one.reason == reasons.ACTION_IGNORED)
        assert "take it out of the spec" in news.note
        world.spec = spec.model_copy(update={"checklist": None})
        assert world.act("promote", "r2").stable == "r2"

    def test_it_is_rolled_back_when_it_fails(self, spec: Any) -> None:
        """The message names the checks, nobody was answered by it, and only retry tries it again."""
        world = waiting(spec)
        world.checklist = "Failed"
        state = world.settle()
        assert (state.phase, state.reason, state.failed) == ("Aborting", reasons.CHECKLIST_FAILED, "r2")
        assert "models FAIL: HTTP 404" in state.message
        assert world.weights == {"r1": 100}
        assert world.wait(3600).phase == "RolledBack"
        world.checklist = "Passed"
        assert world.settle().canary is None, "the same spec again is no new try"
        world.checklist = "Running"
        state = world.act("retry", "r2")
        assert (state.canary, state.checked) == ("r2", None)
        assert not has_traffic(world)

    def test_it_is_rolled_back_when_it_takes_too_long(self, spec: Any) -> None:
        """At the progress deadline, with what the last try said."""
        world = waiting(spec)
        world.now += dt.timedelta(seconds=599)
        assert world.settle().canary == "r2"
        world.now += dt.timedelta(seconds=1)
        state = world.settle()
        assert (state.reason, state.failed) == (reasons.PROGRESS_DEADLINE_EXCEEDED, "r2")
        assert "did not pass spec.rollout.checklist within 600 s: models FAIL" in state.message


class TestFirstRevision:
    def test_it_is_held_too(self) -> None:
        """With all pods ready it is not the stable one before it has passed."""
        world = World(spec=STRATEGIES["Rolling"], checklist="Running")
        state = world.settle()
        assert (state.stable, state.phase, state.reason) == (None, "Starting", reasons.AWAITING_CHECKLIST)
        assert world.weights == {}
        world.checklist = "Passed"
        assert world.settle().stable == "r1"

    def test_it_stalls_when_it_fails_until_somebody_retries(self) -> None:
        """There is nothing to go back to: it says what failed, keeps its pods, and is tried again on request."""
        world = World(spec=STRATEGIES["Rolling"], checklist="Failed")
        state = world.settle()
        assert (state.stable, state.reason) == (None, reasons.CHECKLIST_FAILED)
        assert "models FAIL: HTTP 404" in state.message
        assert world.scale == {"r1": Scale(4, autoscaled=True)}
        first_try = state.step_started_at
        world.act("promote", "r1")
        assert world.state.reason == reasons.CHECKLIST_FAILED
        world.now += dt.timedelta(seconds=60)
        state = world.act("retry", "r1")
        assert state.step_started_at != first_try, "which is what makes it another Job"
        world.checklist = "Passed"
        assert world.settle().stable == "r1"

    def test_it_may_pass_late(self) -> None:
        """Past the deadline it says so, and a checklist that passes after all lets it in."""
        world = World(spec=STRATEGIES["Rolling"], checklist="Running")
        world.settle()
        world.now += dt.timedelta(seconds=600)
        state = world.settle()
        assert (state.phase, state.reason) == ("Starting", reasons.PROGRESS_DEADLINE_EXCEEDED)
        assert "did not pass spec.rollout.checklist" in state.message
        world.checklist = "Passed"
        assert world.settle().stable == "r1"

    def test_no_replicas_need_no_checklist(self) -> None:
        """There is no pod to ask, and no traffic either."""
        world = World(spec=STRATEGIES["Rolling"], checklist="Running", replicas=0)
        assert world.settle().stable == "r1"
        assert world.change("r2").stable == "r2"


class TestOnceIn:
    def test_what_has_passed_stays_in(self) -> None:
        """A Job that is gone, or an operator that starts anew, takes no traffic back; nor does a pod that was lost."""
        world = waiting(STRATEGIES["Canary"])
        world.checklist = "Passed"
        world.settle()
        world.checklist = "Failed"
        assert world.settle().weight == 10
        world.ready["r2"] = 0
        world.settle(pods=False)
        assert world.weights == {"r1": 100}
        assert world.settle().weight == 10

    def test_a_canary_that_had_traffic_before_keeps_it(self) -> None:
        """A checklist that is set in the middle of a rollout is about the next revision."""
        bare = STRATEGIES["Canary"].model_copy(update={"checklist": None})
        world = World(spec=bare, checklist="Failed").serve()
        assert world.change("r2").weight == 10
        world.spec = STRATEGIES["Canary"]
        assert world.settle().weight == 10
        assert world.change("r3").reason == reasons.CHECKLIST_FAILED

    def test_one_that_had_none_has_to_pass(self) -> None:
        """A preview whose checklist is set while it waits loses the requests of match until it has passed."""
        bare = STRATEGIES["BlueGreen"].model_copy(update={"checklist": None})
        world = World(spec=bare, checklist="Running").serve()
        world.change("r2")
        world.wait(3600)
        assert has_traffic(world)
        world.spec = STRATEGIES["BlueGreen"]
        state = world.settle()
        assert (state.phase, state.reason) == ("Starting", reasons.AWAITING_CHECKLIST)
        assert not has_traffic(world)
        world.checklist = "Passed"
        world.settle()
        assert has_traffic(world)

    def test_going_back_needs_no_checking(self) -> None:
        """An undo moves all of the traffic in one decision, whatever the checklist would say."""
        world = waiting(STRATEGIES["Rolling"])
        world.checklist = "Passed"
        assert world.settle().stable == "r2"
        world.checklist = "Failed"
        state = world.act("undo", "r2")
        assert state.stable == "r1"
        assert world.weights == {"r1": 100}
