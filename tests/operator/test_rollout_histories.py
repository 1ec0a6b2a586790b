"""Rollouts, through random histories: what holds whatever happens, and whenever the operator is killed."""

from __future__ import annotations

import datetime as dt
import runpy
from math import ceil
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supportfleet_operator.api import RolloutStatus
from supportfleet_operator.rollout import Action, Decision, Inputs, RolloutState, decide, reasons
from supportfleet_operator.rollout.analysis.verdict import overall
from supportfleet_operator.rollout.capacity import AT_ONCE, need
from supportfleet_operator.rollout.effects import weights
from supportfleet_operator.rollout.policies.verdict import remember
from supportfleet_operator.rollout.wanted import wanted

WORLD = runpy.run_path(str(Path(__file__).parent / "rollout_world.py"))
World, canary, rollout, ERRORS = (WORLD[name] for name in ("World", "canary", "rollout", "ERRORS"))

REVISIONS = ("r1", "r2", "r3", "r4")
BETA = [{"headers": {"user-agent": {"regex": ".*beta-tester.*"}}}]
SPECS = (
    canary(10, "60", 50),
    canary(20, ..., 60, None, 100, analysis=ERRORS),
    canary(5, "30", 50, "30", analysis={**ERRORS, "failureLimit": 2, "onNoData": "Pass"}, scaleDownDelaySeconds=0),
    rollout(),
    rollout(strategy="BlueGreen", steps=[{"pause": {"durationSeconds": 30}}, {"analysis": {}}], analysis=ERRORS),
    rollout(strategy="ABTest", match=BETA, steps=[{"pause": {"durationSeconds": 30}}], analysis=ERRORS),
    rollout(strategy="ABTest", match=BETA, steps=[{"analysis": {}}], analysis={**ERRORS, "onNoData": "Fail"}),
    canary([20], ..., 10, [0], "30", 50, match=BETA, analysis=ERRORS),
    canary([100], "60", 20, None, scaleDownDelaySeconds=0),
    canary(10, "60", 50, match=BETA, checklist={}),
    rollout(checklist={}),
    rollout(
        strategy="BlueGreen", match=BETA, steps=[{"pause": {"durationSeconds": 30}}], analysis=ERRORS, checklist={}
    ),
)
PROVIDERS = ("None", "Istio", "GatewayAPI")
AT_REST = {"Idle", "RolledBack", "Paused"}


class Histories(RuleBasedStateMachine):
    """Anything may happen, in any order; the operator may be killed anywhere between deciding and scaling."""

    @initialize(
        spec=st.sampled_from(SPECS),
        provider=st.sampled_from(PROVIDERS),
        sticky=st.sampled_from([None, 5, 90]),
        replicas=st.sampled_from([1, 3, 10]),
        began=st.sampled_from(["nothing", "serving", "rolling out", "rolling out", "rolling out"]),
        checklist=st.sampled_from(["Passed", "Running"]),
    )
    def begin(self, spec: object, provider: str, sticky: int | None, replicas: int, began: str, checklist: str) -> None:
        self.world = World(spec=spec, provider=provider, sticky_seconds=sticky, replicas=replicas)
        self.refused: str | None = None
        """The revision that was rolled back, as long as nobody asked for another, or for it again."""
        if began != "nothing":
            self.world.serve()
        self.world.checklist = checklist
        if began == "rolling out":
            self.world.change("r2")

    @rule(
        times=st.integers(1, 6),
        crash=st.sampled_from(["", "", "", "behind", "before writing", "after writing", "after traffic"]),
        pods=st.booleans(),
    )
    def reconcile(self, times: int, crash: str, pods: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        for _ in range(times):
            before = self.world.state
            inputs = self.world.measured(self.world.inputs())
            decision = self.world.reconcile(crash)
            if crash == "behind":
                continue
            if self.world.target != self.refused:
                self.refused = None
            if crash != "before writing":
                self.check_move(before, decision, inputs)
                self.check_admission(before, decision, inputs)
                self.check_effects(decision)
            if pods:
                self.world.pods_follow()

    def check_move(self, before: RolloutState, decision: Decision, inputs: Inputs) -> None:
        after = decision.state
        same_canary = before.canary == after.canary is not None
        undo = after.undone is not None and after.undone == after.stable
        if after.weight > before.weight:
            ready = self.world.ready.get(after.canary or "", 0)
            assert same_canary or undo, "a new canary began with traffic"
            assert ready >= max(1, need(inputs, after.weight)), f"weight {after.weight} on {ready} ready pods"
        if same_canary and not self.acted(before, after):
            assert after.step in {before.step, before.step + 1}, "a step was skipped or repeated"
        if after.canary != before.canary and after.canary is not None and not undo:
            assert after.step == after.weight == after.mirror == 0, "a canary began in the middle"
        self.check_traffic(before, after)
        self.check_verdicts(before, after, inputs, by_a_person=self.acted(before, after) or undo)
        if after.phase == "Aborting" and before.canary == self.world.target:
            self.refused = self.world.target
        if self.acted(before, after) and self.world.action.name == "retry":
            self.refused = None
        if after.canary is not None:
            assert after.canary != self.refused, "the failed revision was tried again"
        if after.stable != before.stable and before.stable and self.world.replicas and not self.world.suspended:
            assert before.phase == "Promoting", "promoted out of turn"
            assert before.weight == 100

    def check_admission(self, before: RolloutState, decision: Decision, inputs: Inputs) -> None:
        """Nobody's first request goes to a revision that has yet to pass its checklist, by whatever way."""
        after, said = decision.state, inputs.checklist
        passed = before.canary == before.checked or (said is not None and said.verdict == "Passed")
        undo = before.undone is not None and before.undone == before.stable
        began = before.step or before.weight or before.mirror
        if after.reason == reasons.CHECKLIST_FAILED != before.reason:
            assert said is not None
            assert said.verdict == "Failed"
        if inputs.rollout.checklist is None or before.canary is None or passed or undo or began:
            return
        if not inputs.replicas_needed:
            return
        taken = {*decision.weights, *decision.sticky, decision.matched, *(decision.mirror or ())[:1]}
        assert before.canary not in taken - {before.stable}, "traffic for a revision that was not checked"

    def check_traffic(self, before: RolloutState, after: RolloutState) -> None:
        """Whoever gets more has pods that answer, or those that lose it have none."""
        world, had, has = self.world, weights(before), weights(after)
        if world.suspended or not world.replicas or not had:
            return
        gains = [name for name in has if has[name] > had.get(name, 0)]
        loses = [name for name in had if had[name] > has.get(name, 0)]
        answered = any(world.ready.get(name) for name in loses)
        assert not answered or all(world.ready.get(name) for name in gains), f"{loses} to {gains}: nobody answers"
        if world.spec.strategy in AT_ONCE and after.weight != before.weight:
            assert after.weight in {0, 100}, "a part of the traffic for a revision that is to get it all at once"

    @staticmethod
    def check_verdicts(before: RolloutState, after: RolloutState, inputs: Inputs, *, by_a_person: bool) -> None:
        """Only figures that passed lead on, and only figures that failed lead back."""
        analysis = inputs.rollout.analysis
        same = before.canary == after.canary is not None
        if analysis is not None and same and not by_a_person and before.phase in {"Stepping", "Paused"}:
            counts = before.weight or before.mirror
            more = after.weight > before.weight or after.mirror > before.mirror
            on = (more and after.step > before.step) or after.phase == "Promoting" != before.phase
            measured = remember(before, inputs)
            passed = measured.last_analysis_at is not None and overall(measured.last_analysis, analysis) == "Pass"
            assert passed or not (on and counts), "led on without figures"
        if after.reason == reasons.ANALYSIS_FAILED != before.reason:
            assert analysis is not None
            assert after.analysis_failures >= analysis.failure_limit
            assert overall(after.last_analysis, analysis) == "Fail" or before.analysis_failures

    @staticmethod
    def acted(before: RolloutState, after: RolloutState) -> bool:
        return before.last_action_id != after.last_action_id

    def check_effects(self, decision: Decision) -> None:
        state, world = decision.state, self.world
        assert all(0 < weight <= 100 for weight in decision.weights.values())
        assert sum(decision.weights.values()) in ({0} if state.stable is None else {100})
        assert set(decision.scale) == set(decision.keep) >= set(decision.weights)
        assert {state.stable, state.canary, world.target} - {None} <= set(decision.keep)
        self.check_routes(decision)
        if state.stable and not world.suspended:
            size = decision.scale[state.stable].min_replicas
            assert size >= ceil(decision.weights.get(state.stable, 0) * world.replicas / 100)
            assert size == world.replicas, "stable shrank"

    def check_routes(self, decision: Decision) -> None:
        """Copies and conversations go to revisions with pods, and never to one that was taken back."""
        state, world = decision.state, self.world
        if decision.mirror is not None:
            name, percent = decision.mirror
            assert name == state.canary
            assert 0 < percent <= 100
            assert decision.weights[state.stable] > 0, "copies of its own requests alone"
        for name in {*decision.sticky, *(one for one in (decision.matched, *(decision.mirror or ())[:1]) if one)}:
            assert world.ready.get(name, 0) > 0, "requests for a revision without pods"
            assert world.provider != "None"
        assert not {state.failed, state.undone} & set(decision.sticky) - {state.stable, state.canary}
        assert set(decision.sticky) <= {state.stable, state.canary, *state.retiring}
        stay = {*decision.sticky, *state.sticky} - {state.stable, state.canary}
        assert all(name in world.served for name in stay), "conversations of a revision that was never stable"
        for name in stay if world.provider != "None" and not world.suspended else ():
            assert decision.scale[name].min_replicas == world.inputs().view(name).desired, "it lost pods"

    @invariant()
    def what_is_written_is_all_there_is(self) -> None:
        """A decision made from the status as another operator reads it is the same."""
        if not hasattr(self, "world"):
            return
        state = self.world.state
        again = RolloutState.from_status(
            RolloutStatus.model_validate_json(state.to_status().model_dump_json(by_alias=True))
        )
        assert again == state
        assert decide(again, self.world.inputs()) == decide(state, self.world.inputs())

    @rule(replicas=st.sampled_from([1, 3, 10]))
    def the_load_changes(self, replicas: int) -> None:
        self.world.replicas = replicas

    @rule(sticky=st.sampled_from([None, 5, 90]))
    def stickiness_changes(self, sticky: int | None) -> None:
        self.world.sticky_seconds = sticky

    @rule()
    def stable_loses_its_pods(self) -> None:
        self.world.ready[self.world.state.stable or ""] = 0

    @rule(seconds=st.sampled_from([1, 10, 29, 30, 61, 599, 601, 5000, -10, -3600]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += dt.timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([0, 10, 60]), times=st.integers(1, 8))
    def all_goes_well_for_a_while(self, seconds: int, times: int) -> None:
        for _ in range(times):
            self.world.now += dt.timedelta(seconds=seconds)
            self.reconcile(times=1, crash="", pods=True)

    @rule(verdict=st.sampled_from(["Pass", "Pass", "Fail", "NoData", "Inconclusive"]), times=st.integers(1, 4))
    def it_is_measured(self, verdict: str, times: int) -> None:
        self.world.verdict = verdict
        for _ in range(times):
            self.world.now += dt.timedelta(seconds=10)
            self.reconcile(times=1, crash="", pods=True)

    @rule(revision=st.sampled_from(REVISIONS), spec=st.sampled_from(SPECS))
    def another_revision_comes_up(self, revision: str, spec: object) -> None:
        self.world.target, self.world.spec = revision, spec
        self.reconcile(times=6, crash="", pods=True)

    @rule(verdict=st.sampled_from(["Running", "Passed", "Failed"]))
    def the_checklist_says(self, verdict: str) -> None:
        self.world.checklist = verdict

    @rule()
    def the_canary_loses_its_pods(self) -> None:
        self.world.ready[self.world.state.canary or ""] = 0

    @rule(revision=st.sampled_from(REVISIONS))
    def the_spec_changes(self, revision: str) -> None:
        self.world.target = revision

    @rule(revision=st.sampled_from(REVISIONS), ready=st.integers(0, 10))
    def pods_come_and_go(self, revision: str, ready: int) -> None:
        scale = self.world.scale.get(revision)
        self.world.ready[revision] = min(ready, scale.min_replicas if scale else 0)

    @rule(
        name=st.sampled_from(["promote", "abort", "retry", "pause", "resume", "undo", "nonsense"]),
        right=st.sampled_from([True, True, True, False]),
        crash=st.sampled_from(["", "", "before writing", "after writing"]),
    )
    def somebody_acts(self, name: str, right: bool, crash: str) -> None:  # noqa: FBT001 - hypothesis gives it by name
        state = self.world.state
        meant = {"undo": state.stable, "retry": self.world.target}.get(name, state.canary)
        self.world.action = Action(name, (meant or "") if right else "r9", f"{name}-{len(self.world.log)}")
        self.reconcile(times=2, crash=crash, pods=False)

    @rule(paused=st.booleans())
    def the_spec_holds_it(self, paused: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        self.world.spec = self.world.spec.model_copy(update={"paused": paused})

    @rule(spec=st.sampled_from(SPECS))
    def the_strategy_changes(self, spec: object) -> None:
        self.world.spec = spec

    @rule(suspended=st.booleans())
    def it_is_suspended(self, suspended: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
        self.world.suspended = suspended

    @precondition(lambda self: not self.world.suspended)
    @rule()
    def it_goes_quiet(self) -> None:
        """With nothing more from outside every history ends: promoted, rolled back, or paused with a reason."""
        world = self.world
        if world.state.stable is None:  # a first revision waits for as long as it is not checked
            world.checklist = "Passed"
        for _ in range(300):
            decision = world.reconcile()
            if world.pods_follow():
                continue
            self.refused = self.refused if world.target == self.refused else None
            assert decision.state.canary is None or decision.state.canary != self.refused
            if decision.state.phase == "Aborting" and decision.state.failed == world.target:
                self.refused = world.target
            wait = decision.requeue_after
            if wait is None or (decision.state.phase in AT_REST and wait != 0 and not decision.state.retiring):
                timed = decision.state.phase == "Paused" and decision.state.reason == reasons.PAUSE_STEP and wait
                if not timed:
                    break
            world.now += dt.timedelta(seconds=wait or 0)
        state = world.state
        assert state.phase in AT_REST, f"still {state.phase}: {state.message}"
        assert state.reason
        assert state.message
        held_back = state.reason == reasons.PAUSED_BY_SPEC
        if state.phase == "Idle":
            assert held_back or wanted(state, world.inputs()) == state.stable
            assert world.weights == {state.stable: 100}
        if state.phase == "RolledBack":
            assert state.failed == world.target
            assert world.weights == {state.stable: 100}


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
