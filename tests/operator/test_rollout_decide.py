"""Rollouts, one story at a time."""

from __future__ import annotations

import datetime as dt
import runpy
from pathlib import Path
from typing import Any

import pytest

from supportfleet_operator.rollout import Action, action_of, decide, reasons
from supportfleet_operator.rollout.inputs import Scale

WORLD = runpy.run_path(str(Path(__file__).parent / "rollout_world.py"))
World, canary, rollout, ERRORS = (WORLD[name] for name in ("World", "canary", "rollout", "ERRORS"))

AB_TEST = rollout(
    strategy="ABTest",
    match=[{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}],
    steps=[{"pause": {"durationSeconds": 30}}],
    analysis=ERRORS,
)


class TestFirstRevision:
    def test_it_serves_only_once_all_of_its_pods_are_ready(self) -> None:
        """Nobody is routed to the first revision before its pods are ready, and then everybody, with no steps."""
        world = World()
        world.settle(pods=False)
        assert world.weights == {}
        assert world.scale == {"r1": Scale(4, autoscaled=True)}
        world.ready["r1"] = 3
        assert world.settle(pods=False).stable is None
        world.ready["r1"] = 4
        assert world.settle(pods=False).stable == "r1"
        assert world.weights == {"r1": 100}

    def test_a_late_one_stalls_and_may_still_come(self) -> None:
        """At the deadline the reason says so with the pods' problem; pods that come after all are taken."""
        world = World(problem="ImagePullBackOff")
        world.settle(pods=False)
        world.now += dt.timedelta(seconds=600)
        state = world.settle(pods=False)
        assert (state.phase, state.reason) == ("Starting", reasons.PROGRESS_DEADLINE_EXCEEDED)
        assert "ImagePullBackOff" in state.message
        assert world.settle().stable == "r1"

    def test_a_bad_one_is_replaced_by_a_changed_spec(self) -> None:
        """Before anything serves, a new spec takes the place of the old at once."""
        world = World()
        world.settle(pods=False)
        world.target = "r2"
        world.reconcile()
        world.reconcile()
        assert world.scale["r1"].min_replicas == 0, "pods that never got ready are kept for nobody"
        assert world.settle().stable == "r2"

    def test_no_replicas_need_no_pods(self) -> None:
        """An agent with replicas 0 has a stable revision all the same, and its changes take over at once."""
        world = World(replicas=0)
        assert world.settle().stable == "r1"
        assert world.change("r2").stable == "r2"


class TestCanary:
    def test_it_goes_through_its_steps(self) -> None:
        """Each weight comes in order, the pause is waited out, and after the last step the canary is stable."""
        world = World().serve()
        state = world.change("r2")
        assert (state.phase, state.weight, state.step) == ("Paused", 10, 1)
        assert world.weights == {"r1": 90, "r2": 10}
        assert world.wait(59).weight == 10
        state = world.wait(1)
        assert (state.phase, state.stable, state.previous, state.canary) == ("Idle", "r2", "r1", None)
        assert [one.weights.get("r2", 0) for one in world.log if one.weights.get("r2", 0)][-1] == 100
        assert {one.weights.get("r2", 0) for one in world.log} == {0, 10, 50, 100}

    def test_a_weight_waits_for_its_pods(self) -> None:
        """With one pod short of what half of the traffic needs, the weight stays."""
        world = World(spec=canary(10, 50, None)).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = 1
        assert world.settle(pods=False).weight == 10
        assert world.scale["r2"].min_replicas == 2
        world.ready["r2"] = 2
        assert world.settle(pods=False).weight == 50

    def test_stable_keeps_its_size_until_the_delay_has_passed(self) -> None:
        """All of stable's pods are there through the steps, and for scaleDownDelaySeconds after the promotion."""
        world = World().serve()
        world.change("r2")
        assert world.scale["r1"].min_replicas == 4
        assert world.wait(60).stable == "r2"
        assert world.scale["r1"].min_replicas == 4
        world.wait(29)
        assert world.scale["r1"].min_replicas == 4
        world.wait(1)
        assert world.scale["r1"].min_replicas == 0
        assert "r1" in world.log[-1].keep

    def test_old_revisions_are_kept_up_to_the_limit(self) -> None:
        """Of those that nothing needs, the newest revisionHistoryLimit remain."""
        world = World(spec=rollout(revisionHistoryLimit=1)).serve()
        for target in ("r2", "r3", "r4"):
            world.change(target)
            world.wait(60)
        assert set(world.log[-1].keep) == {"r4", "r3", "r2"}

    def test_without_a_router_a_share_is_a_share_of_the_pods(self) -> None:
        """Weight 50 beside 4 stable pods is 4 canary pods; weight 20 is 1."""
        world = World(provider="None", spec=canary(20, None, 50, None)).serve()
        state = world.change("r2")
        assert world.scale["r2"].min_replicas == 1
        world.act("resume", state.canary)
        assert world.scale["r2"].min_replicas == 4
        assert world.scale["r1"].min_replicas == 4

    def test_without_a_router_a_third_revision_has_no_pods(self) -> None:
        """While one Service splits the traffic of two revisions, one that retires is scaled down at once."""
        world = World(provider="None", spec=canary(20, None)).serve()
        world.change("r2")
        world.change("r3")
        assert set(world.weights) == {"r1", "r3"}
        assert world.scale["r2"].min_replicas == 0

    def test_a_canary_that_loses_its_pods_loses_its_traffic(self) -> None:
        """With no ready pod left stable takes over; once they are back the canary has its weight again."""
        world = World(spec=canary(50, None)).serve()
        world.change("r2")
        world.ready["r2"] = 0
        state = world.settle(pods=False)
        assert (world.weights, state.reason, state.step) == ({"r1": 100}, reasons.CANARY_LOST, 1)
        assert world.settle().weight == 50


class TestOtherStrategies:
    def test_rolling_needs_no_steps(self) -> None:
        """Rolling moves all of the traffic as pods get ready, in waves."""
        world = World(spec=rollout()).serve()
        assert world.change("r2").stable == "r2"
        assert sorted({one.weights.get("r2", 0) for one in world.log}) == [0, 25, 50, 75, 100]

    def test_blue_green_moves_once(self) -> None:
        """BlueGreen has full size before its first traffic, and then has all of it."""
        world = World(spec=rollout(strategy="BlueGreen", steps=[{"pause": {}}])).serve()
        state = world.change("r2")
        assert (state.weight, world.scale["r2"].min_replicas) == (0, 4)
        world.act("resume", "r2")
        assert {one.weights.get("r2", 0) for one in world.log} == {0, 100}


class TestRollback:
    def test_the_weight_goes_first(self) -> None:
        """A failed analysis takes the traffic in one decision, and the pods only after the delay."""
        world = World(spec=canary(10, "600", analysis=ERRORS)).serve()
        world.change("r2")
        world.verdict = "Fail"
        state = world.wait(10)
        assert (state.phase, state.failed, world.weights) == ("Aborting", "r2", {"r1": 100})
        assert world.scale["r2"].min_replicas > 0
        assert "errorRate is 0.5, limit 0.05 (40 samples)" in state.message
        state = world.wait(30)
        assert (state.phase, state.reason) == ("RolledBack", reasons.ANALYSIS_FAILED)
        assert world.scale["r2"].min_replicas == 0

    @pytest.mark.parametrize("waited", [0, 30, 3600])
    def test_it_is_not_tried_again(self, waited: float) -> None:
        """However often the same spec is looked at, the failed revision gets no pods and no traffic."""
        world = World(spec=canary(10, None)).serve()
        world.act("abort", world.change("r2").canary)
        for _ in range(3):
            assert world.wait(waited).canary is None
        assert world.weights == {"r1": 100}

    def test_retry_tries_it_again(self) -> None:
        """The action starts the failed revision at the first step."""
        world = World(spec=canary(10, None)).serve()
        world.act("abort", world.change("r2").canary)
        state = world.act("retry", "r2")
        assert (state.canary, state.weight, state.failed) == ("r2", 10, None)

    def test_a_changed_spec_moves_on_at_once(self) -> None:
        """A third revision starts although the second's rollback isn't over; back to the second tries it again."""
        world = World(spec=canary(10, None)).serve()
        world.act("abort", world.change("r2").canary)
        assert world.change("r3").canary == "r3"
        assert world.change("r2").canary == "r2"

    def test_going_back_ends_it(self) -> None:
        """The stable spec again: all of the traffic for stable, and no memory of a failure."""
        world = World(spec=canary(10, None)).serve()
        world.change("r2")
        state = world.change("r1")
        assert (state.phase, state.canary, state.failed, world.weights) == ("Idle", None, None, {"r1": 100})

    def test_a_new_spec_supersedes_the_canary(self) -> None:
        """The old canary's weight is 0 in a decision of its own before the new one gets any."""
        world = World(spec=canary(10, None)).serve()
        world.change("r2")
        seen = len(world.log)
        state = world.change("r3")
        assert (state.canary, state.weight) == ("r3", 10)
        assert world.log[seen].weights == {"r1": 100}

    @pytest.mark.parametrize("ready", [0, 1])
    def test_pods_that_never_come_are_rolled_back_at_the_deadline(self, ready: int) -> None:
        """In Starting and in a step alike, progressDeadlineSeconds is the end."""
        world = World(spec=canary(10, 50), problem="CrashLoopBackOff").serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = ready
        assert world.settle(pods=False).canary == "r2"
        world.now += dt.timedelta(seconds=600)
        state = world.settle(pods=False)
        assert (state.failed, state.reason) == ("r2", reasons.PROGRESS_DEADLINE_EXCEEDED)
        assert "CrashLoopBackOff" in state.message

    def test_a_promotion_that_never_ends_is_rolled_back(self) -> None:
        """Pods for all of the traffic that don't get ready by the deadline end a promotion too."""
        world = World(spec=canary(10)).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = 1
        assert world.settle(pods=False).phase == "Promoting"
        world.now += dt.timedelta(seconds=600)
        assert world.settle(pods=False).failed == "r2"

    def test_stable_must_be_able_to_take_over(self) -> None:
        """With no stable pod ready a failing canary keeps its traffic, and is rolled back once there is one."""
        world = World(spec=canary(10, None, analysis=ERRORS)).serve()
        world.change("r2")
        world.verdict, world.ready["r1"] = "Fail", 0
        world.now += dt.timedelta(seconds=10)
        state = world.settle(pods=False)
        assert (state.reason, state.weight) == (reasons.STABLE_NOT_READY, 10)
        assert world.settle().failed == "r2"


class TestAnalysis:
    @pytest.mark.parametrize("verdict", ["Inconclusive", "NoData"])
    def test_doubt_neither_promotes_nor_rolls_back(self, verdict: str) -> None:
        """With too little to go by the weight stays for ever, and after the deadline the reason says so."""
        world = World(spec=canary(10, "5", 50, analysis=ERRORS), verdict=verdict).serve()
        world.change("r2")
        for _ in range(200):
            state = world.wait(10)
        assert (state.weight, state.canary, state.failed) == (10, "r2", None)
        assert (state.phase, state.reason) == ("Paused", reasons.AWAITING_ANALYSIS)
        world.verdict = "Pass"
        for _ in range(3):
            state = world.wait(10)
        assert state.stable == "r2"

    def test_every_weight_is_measured_before_it_is_left(self) -> None:
        """A measurement of 10 % says nothing about 50 %."""
        world = World(spec=canary(10, 50, analysis=ERRORS)).serve()
        assert world.change("r2").weight == 10
        assert world.wait(10).weight == 50
        assert world.wait(9).weight == 50
        assert world.wait(1).stable == "r2"

    def test_a_step_for_it_waits_for_a_new_one(self) -> None:
        """An analysis step isn't passed by what was measured before it."""
        world = World(spec=canary(10, "60", ..., None, analysis=ERRORS)).serve()
        world.change("r2")
        world.wait(30)
        assert world.wait(30).step == 2
        assert world.wait(10).step == 3

    def test_failures_count_up_to_the_limit(self) -> None:
        """With failureLimit 2 the first failure is remembered, and the second rolls back."""
        world = World(spec=canary(10, None, analysis={**ERRORS, "failureLimit": 2})).serve()
        world.change("r2")
        world.verdict = "Fail"
        state = world.wait(10)
        assert (state.canary, state.analysis_failures) == ("r2", 1)
        assert world.wait(10).failed == "r2"


class TestActions:
    def test_promote_skips_the_steps_but_not_the_pods(self) -> None:
        """A promoted canary has all of the traffic once the pods for it are ready, and not before."""
        world = World(spec=canary(10, None, 50, None)).serve()
        world.change("r2")
        world.action = Action("promote", "r2", "p")
        state = world.settle(pods=False)
        assert (state.phase, state.weight) == ("Promoting", 10)
        assert world.settle().stable == "r2"

    def test_an_action_is_carried_out_once(self) -> None:
        """The same id does nothing the second time; another id does."""
        world = World(spec=canary(10, None, 50, None)).serve()
        world.change("r2")
        assert world.act("resume", "r2").step == 3
        assert world.wait(60).step == 3
        assert world.act("resume", "r2").stable == "r2"

    @pytest.mark.parametrize("name", ["promote", "abort", "pause", "resume", "retry", "undo", "explode"])
    def test_one_for_another_revision_is_ignored(self, name: str) -> None:
        """An action that names another revision than the one at hand changes nothing, and an event says so once."""
        world = World(spec=canary(10, None)).serve()
        before = world.change("r2")
        seen = len(world.log)
        after = world.act(name, "r9")
        assert (after.canary, after.weight, after.phase) == (before.canary, before.weight, before.phase)
        world.wait(5)
        news = [one.reason for decision in world.log[seen:] for one in decision.news]
        assert news == [reasons.ACTION_IGNORED]

    def test_paused_by_a_person_nothing_moves(self) -> None:
        """Neither time nor a failing measurement moves it; resume goes on with the pause that was cut short."""
        world = World(spec=canary(10, "60", 50, None, analysis=ERRORS)).serve()
        world.change("r2")
        world.act("pause", "r2")
        world.verdict = "Fail"
        assert (world.wait(5000).weight, world.state.failed) == (10, None)
        world.verdict = "Pass"
        assert world.act("resume", "r2").weight == 10
        world.wait(30)
        assert world.wait(30).weight == 50

    def test_paused_by_the_spec_nothing_starts(self) -> None:
        """A held rollout starts nothing new, holds what runs, and goes on once it isn't held."""
        world = World(spec=canary(10, 50, paused=True)).serve()
        assert world.change("r2").canary is None
        world.spec = canary(10, None)
        assert world.settle().weight == 10
        world.spec = canary(10, None, paused=True)
        assert (world.wait(5000).phase, world.weights) == ("Paused", {"r1": 90, "r2": 10})
        world.spec = canary(10, None)
        assert world.settle().reason == reasons.PAUSE_STEP

    def test_undo_goes_back_at_once(self) -> None:
        """Inside the delay the old pods are still there, so they have all of the traffic with no time passing."""
        world = World(spec=rollout()).serve()
        world.change("r2")
        world.action = Action("undo", "r2", "u")
        state = world.settle(pods=False)
        assert (state.stable, world.weights) == ("r1", {"r1": 100})
        assert world.wait(5000).stable == "r1"

    def test_after_undo_only_another_spec_moves(self) -> None:
        """The undone revision comes back only on retry, or once the spec was something else."""
        world = World(spec=rollout()).serve()
        world.change("r2")
        world.act("undo", "r2")
        assert world.wait(60).stable == "r1"
        assert world.change("r3").stable == "r3"
        assert world.change("r2").stable == "r2"

    def test_annotations_become_an_action(self) -> None:
        """Without an id the action and its revision are the id; without an action there is none."""
        assert action_of({"supportfleet.dev/action": "abort", "supportfleet.dev/action-revision": "r2"}) == Action(
            "abort", "r2", "abort/r2"
        )
        assert action_of({}) is None
        assert action_of(None) is None


class TestClockAndSuspension:
    def test_a_clock_that_jumps_back_skips_no_pause(self) -> None:
        """After a jump of an hour the pause is waited out in full, and no longer than that."""
        world = World().serve()
        world.change("r2")
        world.now -= dt.timedelta(hours=1)
        world.settle()
        assert world.wait(59).weight == 10
        assert world.wait(1).stable == "r2"

    def test_suspended_nothing_runs(self) -> None:
        """All pods go, the canary is dropped, and the rollout begins again after."""
        world = World(spec=canary(10, None)).serve()
        world.change("r2")
        world.suspended = True
        assert world.settle().canary is None
        assert not any(one.min_replicas for one in world.scale.values())
        world.suspended = False
        world.settle(pods=False)
        assert world.settle().weight == 10


class TestCrashes:
    STORIES = (
        (canary(10, "60", 50, ..., analysis=ERRORS), "Istio", "Pass"),
        (canary(10, "60", 50, ..., analysis=ERRORS), "None", "Fail"),
        (rollout(), "None", "Pass"),
        (rollout(strategy="BlueGreen", steps=[{"pause": {"durationSeconds": 30}}]), "Istio", "Pass"),
        (canary([20], "60", [0], 10, "30", analysis=ERRORS), "GatewayAPI", "Pass"),
        (canary([20], ..., 10, analysis=ERRORS), "Istio", "Fail"),
        (AB_TEST, "GatewayAPI", "Pass"),
    )

    @pytest.mark.parametrize(("spec", "provider", "verdict"), STORIES)
    @pytest.mark.parametrize("crash", ["behind", "before writing", "after writing", "after traffic"])
    def test_killed_at_every_boundary_it_takes_the_same_way(
        self, spec: object, provider: str, verdict: str, crash: str
    ) -> None:
        """Killed once at each decision in turn, a rollout passes through the same states as one left alone."""
        way = walk(spec, provider, verdict)
        assert len(way) > 4
        for move in range(len(way) - 1):
            assert walk(spec, provider, verdict, crash, move) == way


def walk(spec: object, provider: str, verdict: str, crash: str = "", at: int = -1) -> list[tuple[object, ...]]:
    """The states that a rollout passes through, with the operator killed at one of its moves."""
    world = World(spec=spec, provider=provider, verdict=verdict).serve()
    world.target = "r2"
    way = [way_point(world)]
    killed = False
    for _ in range(120):
        here = not killed and len(way) - 1 == at
        kill = here and decide(world.state, world.measured(world.inputs())).state != world.state
        killed = killed or kill
        decision = world.reconcile(crash if kill else "")
        if not kill:  # pods don't follow what was never asked for
            world.pods_follow()
        seen = way_point(world)
        way += [seen] if way[-1] != seen else []
        world.now += dt.timedelta(seconds=1 if decision.requeue_after != 0 else 0)
        if decision.requeue_after is None and world.state.canary is None:
            break  # nothing is left to wait for
    assert killed == bool(crash)
    return way


def way_point(world: Any) -> tuple[object, ...]:
    """What a step boundary changes."""
    state = world.state
    return (state.phase, state.canary, state.stable, state.step, state.weight, state.mirror, state.failed)


def test_the_next_look_is_when_time_may_matter() -> None:
    """A timed pause asks to be called when it is over; one for a person doesn't ask."""
    world = World(spec=canary(10, "60", None)).serve()
    world.wait(31)
    world.change("r2")
    assert world.log[-1].requeue_after == 60
    world.wait(60)
    assert world.state.phase == "Paused"
    world.wait(600)
    assert world.log[-1].requeue_after is None
