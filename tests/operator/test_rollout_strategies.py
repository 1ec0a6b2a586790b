"""A/B tests, mirroring, stickiness, and how soon and how long a rollout waits: one story at a time."""

from __future__ import annotations

import datetime as dt
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from supportfleet_operator.rollout import Action, decide, due, reasons
from supportfleet_operator.rollout.inputs import Scale

WORLD = runpy.run_path(str(Path(__file__).parent / "rollout_world.py"))
World, canary, rollout, ERRORS = (WORLD[name] for name in ("World", "canary", "rollout", "ERRORS"))

BETA = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
ROUTED = ("Istio", "GatewayAPI")


def ab_test(*steps: Any, **fields: Any) -> Any:
    """An A/B test with these steps, as ``canary`` writes them."""
    return canary(*steps, **fields).model_copy(
        update={"strategy": "ABTest", "match": rollout(strategy="Canary", steps=[{"pause": {}}], match=BETA).match}
    )


class TestABTest:
    def test_only_those_who_match_try_it(self) -> None:
        """Ordinary traffic stays on stable to the end, those who match get the canary, and then all do."""
        world = World(spec=ab_test("60")).serve()
        world.change("r2")
        assert (world.weights, world.log[-1].matched) == ({"r1": 100}, "r2")
        assert world.wait(60).stable == "r2"
        assert {one.weights.get("r2", 0) for one in world.log} == {0, 100}

    def test_it_has_its_full_size_before_anybody_tries_it(self) -> None:
        """Nobody knows how many match, and all come at once in the end."""
        world = World(spec=ab_test("60")).serve()
        world.target = "r2"
        world.settle(pods=False)
        assert world.scale["r2"] == Scale(4, autoscaled=True)
        world.ready["r2"] = 3
        world.settle(pods=False)
        assert world.log[-1].matched is None

    @pytest.mark.parametrize("verdict", ["Inconclusive", "NoData"])
    def test_it_is_not_promoted_without_figures(self, verdict: str) -> None:
        """With too few who match it waits, also where no step says to, and says so at the deadline."""
        world = World(spec=ab_test("5", analysis=ERRORS), verdict=verdict).serve()
        world.change("r2")
        for _ in range(70):
            state = world.wait(10)
        assert (state.phase, state.reason, world.weights) == ("Paused", reasons.AWAITING_ANALYSIS, {"r1": 100})
        world.verdict = "Pass"
        assert world.wait(10).stable == "r2"

    def test_a_worse_one_is_rolled_back(self) -> None:
        """Its figures are those of who matched; failing, it loses them."""
        world = World(spec=ab_test("60", analysis=ERRORS)).serve()
        world.change("r2")
        world.verdict = "Fail"
        assert world.wait(10).failed == "r2"
        assert world.log[-1].matched is None


class TestMirroring:
    @pytest.mark.parametrize("provider", ROUTED)
    def test_it_gets_copies_and_no_traffic(self, provider: str) -> None:
        """A step mirrors a share of the requests until another ends it."""
        world = World(spec=canary([20], "60", [0], "60"), provider=provider).serve()
        state = world.change("r2")
        assert (state.mirror, world.weights, world.log[-1].mirror) == (20, {"r1": 100}, ("r2", 20))
        state = world.wait(60)
        assert (state.step, state.mirror, world.log[-1].mirror) == (3, 0, None)

    def test_copies_need_pods_as_traffic_does(self) -> None:
        """Half of the requests, answered by customers' eyes or not, need half of the pods."""
        world = World(spec=canary([50], None)).serve()
        world.target = "r2"
        world.settle(pods=False)
        assert world.scale["r2"].min_replicas == 2
        world.ready["r2"] = 1
        assert world.settle(pods=False).mirror == 0
        world.ready["r2"] = 2
        assert world.settle(pods=False).mirror == 50

    def test_copies_and_traffic_add_up(self) -> None:
        """A quarter mirrored beside a weight of a half is three quarters of the pods."""
        world = World(spec=canary([25], 50, None)).serve()
        world.change("r2")
        assert (world.state.weight, world.state.mirror, world.scale["r2"].min_replicas) == (50, 25, 3)

    @pytest.mark.parametrize("steps", [([25], 50, None), (50, [25], None)])
    def test_a_step_waits_for_the_pods_of_both(self, steps: tuple[Any, ...]) -> None:
        """Two pods carry a half or a quarter, and not the two together."""
        world = World(spec=canary(*steps)).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = 2
        assert world.settle(pods=False).step == 1
        world.ready["r2"] = 3
        state = world.settle(pods=False)
        assert (state.step, state.weight, state.mirror) == (2, 50, 25)

    def test_a_mirror_is_left_only_with_figures(self) -> None:
        """What was measured on copies counts, and no customer gets the canary before it passed."""
        world = World(spec=canary([50], 10, None, analysis=ERRORS), verdict="Inconclusive").serve()
        world.change("r2")
        assert world.wait(10).weight == 0
        world.verdict = "Pass"
        assert world.wait(10).weight == 10

    def test_a_failure_ends_it_with_no_customer_the_wiser(self) -> None:
        """Figures of copies roll back as others do."""
        world = World(spec=canary([50], 10, analysis=ERRORS)).serve()
        world.change("r2")
        world.verdict = "Fail"
        state = world.wait(10)
        assert (state.failed, state.mirror, world.log[-1].mirror) == ("r2", 0, None)
        assert {one.weights.get("r2", 0) for one in world.log} == {0}

    def test_promotion_ends_it(self) -> None:
        """Whoever is about to get everything needs no copies."""
        world = World(spec=canary([50], None)).serve()
        world.change("r2")
        seen = len(world.log)
        world.act("promote", "r2")
        assert {one.mirror for one in world.log[seen:]} == {None}

    def test_lost_pods_get_no_copies_until_they_are_back(self) -> None:
        """A canary with weight and mirror has both again once it has its pods."""
        world = World(spec=canary([20], 10, None)).serve()
        world.change("r2")
        world.ready["r2"] = 0
        world.settle(pods=False)
        assert (world.weights, world.log[-1].mirror) == ({"r1": 100}, None)
        world.settle()
        assert (world.state.weight, world.log[-1].mirror) == (10, ("r2", 20))

    def test_with_all_of_the_traffic_there_is_nothing_to_copy(self) -> None:
        """At weight 100 there are no requests that the canary doesn't get anyway."""
        world = World(spec=canary([20], 100, None)).serve()
        world.change("r2")
        assert (world.weights, world.log[-1].mirror) == ({"r2": 100}, None)

    def test_without_a_router_there_are_none(self) -> None:
        """Nothing copies requests there."""
        world = World(spec=canary([20], None), provider="None").serve()
        world.change("r2")
        assert world.log[-1].mirror is None


class TestStickiness:
    def world(self, *steps: Any, ttl: int = 600, **fields: Any) -> Any:
        return World(spec=canary(*(steps or (10, None)), **fields), sticky_seconds=ttl).serve()

    def test_conversations_stay_on_both_sides(self) -> None:
        """While a canary has weight, requests that bring a mark go to the revision of it."""
        world = self.world()
        assert world.log[-1].sticky == ()
        world.change("r2")
        assert world.log[-1].sticky == ("r1", "r2")

    def test_a_promoted_away_revision_keeps_its_conversations(self) -> None:
        """It keeps them for the time to live, and its pods, at their size, for the delay after that.

        Proxies hear of pods that go before they hear of routes that did.
        """
        world = self.world(10)
        world.change("r2")
        assert (world.weights, world.log[-1].sticky) == ({"r2": 100}, ("r2", "r1"))
        assert world.log[-1].requeue_after == 30
        world.wait(599)
        assert (world.log[-1].sticky, world.scale["r1"]) == (("r2", "r1"), Scale(4, autoscaled=False))
        assert world.log[-1].requeue_after == 1
        world.wait(1)
        assert (world.log[-1].sticky, world.scale["r1"]) == ((), Scale(4, autoscaled=False))
        assert world.log[-1].requeue_after == 30
        world.wait(29)
        assert world.scale["r1"] == Scale(4, autoscaled=False)
        world.wait(1)
        assert world.scale["r1"].min_replicas == 0

    def test_a_delay_longer_than_that_holds(self) -> None:
        """With a time to live of a second the pods stay for scaleDownDelaySeconds all the same."""
        world = self.world(10, ttl=1)
        world.change("r2")
        world.wait(1)
        assert world.log[-1].sticky == ()
        assert world.wait(29).retiring
        assert not world.wait(1).retiring

    def test_a_new_stable_may_shrink_meanwhile(self) -> None:
        """Stable's size is held for the delay only, not for as long as old conversations last."""
        world = self.world(10)
        world.change("r2")
        inputs = world.inputs()
        assert inputs.min_replicas == 4
        world.replicas, world.fewest = 8, 2
        world.settle()
        assert world.scale["r2"].min_replicas == 8
        world.wait(30)
        assert world.scale["r2"].min_replicas == 2

    def test_several_old_ones_keep_theirs(self) -> None:
        """Two promotions within the time leave two revisions with conversations, the newer first."""
        world = self.world(10)
        world.change("r2")
        world.wait(10)
        world.change("r3")
        assert world.log[-1].sticky == ("r3", "r2", "r1")

    @pytest.mark.parametrize("end", ["abort", "analysis", "revert", "another", "deadline"])
    def test_whoever_is_taken_back_loses_them_with_the_weight(self, end: str) -> None:
        """Rolled back, reverted or replaced, in the same decision as the weight goes to 0."""
        world = self.world(10, None, 50, analysis=ERRORS)
        world.change("r2")
        assert "r2" in world.log[-1].sticky
        seen = len(world.log)
        if end == "abort":
            world.act("abort", "r2")
        elif end in {"revert", "another"}:
            world.change({"revert": "r1", "another": "r3"}[end])
        elif end == "analysis":
            world.verdict = "Fail"
            world.wait(10)
        else:
            world.ready["r2"] = 0
            world.settle(pods=False)
            world.now += dt.timedelta(seconds=600)
            world.settle(pods=False)
        without = next(one for one in world.log[seen:] if not one.weights.get("r2"))
        assert "r2" not in without.sticky
        assert all("r2" not in one.sticky for one in world.log[world.log.index(without) :])

    def test_undone_ones_lose_them(self) -> None:
        """Undo takes everybody back, those with a mark as well."""
        world = self.world(10)
        world.change("r2")
        world.act("undo", "r2")
        assert (world.weights, world.log[-1].sticky) == ({"r1": 100}, ())

    def test_one_without_pods_has_none(self) -> None:
        """A mark of a revision whose pods went counts for nothing."""
        world = self.world()
        world.change("r2")
        world.ready["r1"] = 0
        world.settle(pods=False)
        assert world.log[-1].sticky == ("r2",)

    def test_turned_off_they_go_by_weight(self) -> None:
        """Without spec.traffic.stickiness nothing sticks, and old pods go after the delay."""
        world = self.world(10)
        world.change("r2")
        world.sticky_seconds = None
        world.settle()
        assert (world.log[-1].sticky, world.state.sticky, world.scale["r1"].min_replicas) == ((), (), 4)
        world.wait(30)
        assert (world.log[-1].sticky, world.state.sticky, world.scale["r1"].min_replicas) == ((), (), 0)


class TestLatency:
    @pytest.mark.parametrize("steps", [(10, None), ([20], None), (10, "60", 50)])
    def test_the_first_traffic_comes_with_the_first_look_at_ready_pods(self, steps: tuple[Any, ...]) -> None:
        """From pods that are ready to weight it is one decision."""
        world = World(spec=canary(*steps)).serve()
        world.target = "r2"
        world.settle(pods=False)
        assert world.weights == {"r1": 100}
        world.pods_follow()
        decision = world.reconcile()
        assert decision.weights.get("r2") == 10 or decision.mirror == ("r2", 20)

    @pytest.mark.parametrize("spec", [rollout(), canary(10, None)])
    def test_a_changed_spec_is_begun_in_one_decision(self, spec: Any) -> None:
        """From a changed spec to pods that come up it is one decision as well."""
        world = World(spec=spec).serve()
        world.wait(31)
        world.target = "r2"
        assert world.reconcile().scale["r2"].min_replicas == 1

    def test_a_failing_measurement_takes_the_weight_at_once(self) -> None:
        """The decision that sees the figures is the one that takes the traffic."""
        world = World(spec=canary(10, None, analysis=ERRORS)).serve()
        world.change("r2")
        world.verdict = "Fail"
        world.now += dt.timedelta(seconds=10)
        assert world.reconcile().weights == {"r1": 100}

    def test_measurements_come_on_time(self) -> None:
        """The first look is at once, and each next one is asked for when the interval is over, not later."""
        world = World(spec=canary(10, None, analysis=ERRORS)).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.pods_follow()
        world.reconcile()
        assert due(world.state, world.inputs()) == 0
        world.settle()
        assert world.log[-1].requeue_after == 10
        for passed in (9.0, 0.9, 0.099):
            world.now += dt.timedelta(seconds=passed)
            wait = world.reconcile().requeue_after
            assert wait == pytest.approx(due(world.state, world.inputs()))
        assert wait == pytest.approx(0.001)

    def test_samples_that_come_in_are_looked_at_sooner(self) -> None:
        """With some samples but too few the next look is soon, as there may be enough; else it is not."""
        world = World(spec=canary(10, None, analysis={**ERRORS, "intervalSeconds": 10, "minSamples": 20})).serve()
        waits = {}
        for samples in (0, 1, 19, 20):
            world.samples, world.verdict = samples, "Inconclusive"
            world.change("r2") if not samples else world.wait(10)
            waits[samples] = due(world.state, world.inputs())
        assert waits == {0: 10, 1: 2, 19: 2, 20: 10}

    def test_undo_is_one_decision_while_the_pods_are_up(self) -> None:
        """Inside the window all of the traffic is back with the decision that sees the action."""
        world = World(spec=canary(10)).serve()
        world.change("r2")
        world.action = Action("undo", "r2", "u")
        assert world.reconcile().weights == {"r1": 100}
        assert world.settle(pods=False).stable == "r1"

    def test_undo_after_the_window_brings_pods_up_first(self) -> None:
        """Once they are gone, no traffic moves before all of the old revision's pods are ready again."""
        world = World(spec=canary(10)).serve()
        world.change("r2")
        world.wait(31)
        assert world.ready["r1"] == 0
        world.action = Action("undo", "r2", "u")
        world.settle(pods=False)
        assert (world.weights, world.scale["r1"].min_replicas) == ({"r2": 100}, 4)
        world.ready["r1"] = 3
        world.settle(pods=False)
        assert world.weights == {"r2": 100}
        world.ready["r1"] = 4
        assert world.settle(pods=False).stable == "r1"

    def test_undo_is_not_held_by_the_spec(self) -> None:
        """spec.rollout.paused holds what is new, not the way back."""
        world = World(spec=canary(10)).serve()
        world.change("r2")
        world.spec = canary(10, paused=True)
        world.act("undo", "r2")
        assert world.weights == {"r1": 100}
        assert world.state.phase == "Idle"


EXAMPLES = [
    path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")) if "steps:" in path.read_text()
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_that_does_well_is_promoted(path: Path) -> None:
    """What examples/ shows comes to its end, and a bad revision is rolled back."""
    agents = [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "SupportAgent"]
    assert agents
    for agent in agents:
        world = World(spec=rollout(**agent["spec"]["rollout"]), provider=agent["spec"]["traffic"]["provider"]).serve()
        world.change("r2")
        for _ in range(50):
            world.wait(3600)
        assert world.state.stable == "r2"
        world.change("r3")
        world.verdict = "Fail"
        assert world.wait(3600).failed == "r3"


class TestFiguresOutOfTurn:
    @pytest.mark.parametrize("held", ["by the spec", "by a person", "promoted by a person"])
    def test_figures_that_come_too_late_are_not_looked_at(self, held: str) -> None:
        """A measurement that was under way when a person decided changes nothing any more."""
        world = World(spec=canary(10, None, analysis=ERRORS)).serve()
        world.change("r2")
        world.now += dt.timedelta(seconds=10)
        world.verdict = "Fail"
        late = world.measured(world.inputs())
        assert late.analysis is not None
        if held == "by the spec":
            world.spec = canary(10, None, analysis=ERRORS, paused=True)
        else:
            world.action = Action("promote" if "promoted" in held else "pause", "r2", "a")
        world.now -= dt.timedelta(seconds=1)
        world.reconcile()
        world.now += dt.timedelta(seconds=1)
        after = decide(world.state, replace(world.inputs(), analysis=late.analysis)).state
        assert (after.failed, after.analysis_failures) == (None, 0)


class TestDeadline:
    def test_a_model_that_never_comes_is_rolled_back(self) -> None:
        """A canary that has no Deployment yet, for its model isn't verified, has the same time and tells why."""
        world = World(spec=canary(10), problem="DigestMismatch: manifest.json is sha256:0").serve()
        world.target = "r2"
        world.settle(pods=False)
        world.now += dt.timedelta(seconds=600)
        state = world.settle(pods=False)
        assert (state.failed, state.reason) == ("r2", reasons.PROGRESS_DEADLINE_EXCEEDED)
        assert "DigestMismatch" in state.message

    def test_a_wave_that_never_comes_is_rolled_back(self) -> None:
        """Rolling gives up on a wave's pods as a step does."""
        world = World(spec=rollout()).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = 1
        assert world.settle(pods=False).weight == 25
        world.now += dt.timedelta(seconds=600)
        assert world.settle(pods=False).failed == "r2"

    def test_pods_that_keep_going_are_rolled_back(self) -> None:
        """A canary that comes up only to go again has one deadline for all of it, not one for each time."""
        world = World(spec=canary(10, None)).serve()
        world.change("r2")
        for _ in range(20):
            world.wait(30)
            world.ready["r2"] = 0
            world.settle(pods=False)
            if world.state.canary is None:
                break
            world.now += dt.timedelta(seconds=10)
            world.settle()
        assert (world.state.failed, world.state.reason) == ("r2", reasons.PROGRESS_DEADLINE_EXCEEDED)
        assert (world.now - WORLD["START"]).total_seconds() < 700

    def test_a_canary_that_was_up_long_enough_has_a_new_deadline(self) -> None:
        """Losing its pods twice in a day, as spot nodes do, is no reason to roll back."""
        world = World(spec=canary(10, None)).serve()
        world.change("r2")
        for _ in range(5):
            world.wait(7200)
            world.ready["r2"] = 0
            world.settle(pods=False)
            assert world.weights == {"r1": 100}
            world.now += dt.timedelta(seconds=300)
            assert world.settle().weight == 10

    def test_nothing_is_taken_back_to_nobody(self) -> None:
        """Past the deadline with no stable pod ready, the canary keeps what it has until there is one."""
        world = World(spec=canary(50, 100)).serve()
        world.target = "r2"
        world.settle(pods=False)
        world.ready["r2"] = 2
        world.settle(pods=False)
        world.ready["r2"], world.ready["r1"] = 1, 0
        world.now += dt.timedelta(seconds=601)
        state = world.settle(pods=False)
        assert (state.phase, state.reason) == ("Paused", reasons.STABLE_NOT_READY)
        assert world.weights == {"r1": 50, "r2": 50}
        world.ready["r1"] = 4
        assert world.settle(pods=False).failed == "r2"

    @pytest.mark.parametrize("target", ["r1", "r3"])
    def test_a_changed_spec_waits_for_stable_too(self, target: str) -> None:
        """Going back, or on to another revision, is done once stable can answer; changed again, it goes on."""
        world = World(spec=canary(50, None)).serve()
        world.change("r2")
        world.ready["r1"] = 0
        world.target = target
        state = world.settle(pods=False)
        assert (state.phase, state.canary, state.weight) == ("Paused", "r2", 50)
        assert "no pod of r1 is ready" in state.message
        world.target = "r2"
        assert world.settle(pods=False).reason == reasons.PAUSE_STEP
        world.target = target
        world.settle(pods=False)
        world.ready["r1"] = 4
        assert world.settle(pods=False).canary in {None, "r3"}
        assert world.weights == {"r1": 100}

    def test_aborting_to_nobody_is_refused(self) -> None:
        """A person is told that stable can't take over; nothing moves."""
        world = World(spec=canary(50, None)).serve()
        world.change("r2")
        world.ready["r1"] = 0
        world.action = Action("abort", "r2", "a")
        world.settle(pods=False)
        assert world.weights == {"r1": 50, "r2": 50}
        assert any("no pod of r1 is ready" in news.note for one in world.log for news in one.news)

    @pytest.mark.parametrize("spec", [canary(10, 50), canary(10, 50, analysis=ERRORS), rollout(), ab_test("60")])
    def test_an_operator_that_was_away_takes_ready_pods_for_ready(self, spec: Any) -> None:
        """Time that passed while nobody looked is no failure of pods that are ready now."""
        world = World(spec=spec).serve()
        world.wait(31)
        world.target = "r2"
        for _ in range(40):
            world.reconcile()
            world.pods_follow()
            world.now += dt.timedelta(hours=1)
            assert world.state.failed is None
        assert world.state.stable == "r2"

    def test_why_there_are_no_figures_is_said(self) -> None:
        """A paused rollout names the figures that are missing."""
        world = World(spec=canary(10, 50, analysis=ERRORS), verdict="NoData").serve()
        world.change("r2")
        for _ in range(61):
            state = world.wait(10)
        assert state.reason == reasons.AWAITING_ANALYSIS
        assert "errorRate has too few samples (40)" in state.message
