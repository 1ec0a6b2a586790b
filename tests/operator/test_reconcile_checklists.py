"""The checklist as the reconciler carries it out: when its Job is made, what it says, and when it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supportfleet_operator.cluster.resources import JOBS, ObjectRef

DATABASE = {"secretRef": {"name": "db"}}
CANARY = {"strategy": "Canary", "steps": [{"setWeight": 25}, {"pause": {}}], "checklist": {}}
REVISION = "supportfleet.dev/revision"
FAILED = {"reason": "ChecklistFailed", "message": "models FAIL: CLAUDE_MODEL (claude-x): there is no such model"}
INCOMPLETE = {"reason": "ChecklistIncomplete", "message": "queue ERROR: the database can't be reached"}


class Checked:
    """An agent with a checklist, whose Jobs end as the test says."""

    def __init__(self, world: Any, **spec: Any) -> None:
        routed = {"traffic": {"provider": "Istio", "hosts": ["desk.example.com"]}}
        self.world = world(**{"database": DATABASE, "replicas": 4, "rollout": CANARY, **routed, **spec})
        self.world.served = frozenset({"VirtualService"})
        self.made: set[str] = set()

    def jobs(self) -> list[str]:
        return sorted(ref.name for ref in self.world.objects if ref.kind == JOBS.kind and "-check-" in ref.name)

    def job(self, name: str = "") -> Any:
        return self.world.objects[ObjectRef(JOBS.kind, "shop", name or self.jobs()[-1])]

    def settle(self) -> Checked:
        """Rounds until nothing moves; Jobs that check run until the test ends them."""
        for _ in range(60):
            before = self.world.rollout
            found = self.world.step()
            for name in self.jobs():
                if any(write.ref.name == name for write in found.writes):
                    self.job(name)["status"] = {"active": 1}
            self.made |= {write.ref.name for write in found.writes if "-check-" in write.ref.name}
            if found.is_empty and self.world.rollout == before:
                return self
        raise AssertionError("never at rest")

    def ends(self, kind: str, why: str = "") -> Checked:
        """The Job of the newest try ends."""
        ended = {"type": kind, "status": "True", "reason": why, "lastTransitionTime": self.world.stamp()}
        self.job()["status"] = {"conditions": [ended]}
        return self

    def says(self, code: int, report: Any) -> Checked:
        """A pod of that Job ends, and leaves its last word."""
        message = report if isinstance(report, str) else json.dumps(report)
        ended = {"exitCode": code, "message": message, "finishedAt": self.world.stamp()}
        pod = self.world.pod("checklist", phase="Failed" if code else "Succeeded")
        pod["metadata"]["ownerReferences"] = [{"controller": True, "uid": self.job()["metadata"]["uid"]}]
        pod["metadata"]["labels"][REVISION] = self.job()["metadata"]["labels"][REVISION]
        pod["status"]["containerStatuses"] = [{"name": "checklist", "state": {"terminated": ended}}]
        return self

    def passes(self) -> Checked:
        return self.says(0, {"reason": "ChecklistPassed", "message": "13 checks passed"}).ends("Complete").settle()

    def fails(self) -> Checked:
        return self.says(1, FAILED).ends("Failed", "PodFailurePolicy").settle()

    @property
    def rollout(self) -> Any:
        return self.world.rollout

    def selected(self) -> str | None:
        found: str | None = self.world.objects[ObjectRef("Service", "shop", "desk")]["spec"]["selector"].get(REVISION)
        return found

    def condition(self, kind: str) -> Any:
        return next((one for one in self.world.status()["conditions"] if one["type"] == kind), None)


@pytest.fixture
def first(world: Any) -> Checked:
    """One whose first revision is being checked."""
    return Checked(world).settle()


@pytest.fixture
def second(first: Checked) -> Checked:
    """One that serves, and whose second revision is being checked."""
    first.passes()
    first.world.edit(template={"image": "agent:2"})
    return first.settle()


class TestFirstRevision:
    def test_it_serves_nobody_before_it_has_passed(self, first: Checked) -> None:
        """Its pods are ready and the agent's Service chooses none of them; the condition says what is waited for."""
        assert len(first.jobs()) == 1
        assert "VirtualService" not in {ref.kind for ref in first.world.objects}
        chosen = {pod["metadata"]["labels"].get(REVISION) for pod in first.world.pods}
        assert first.selected() not in {None, *chosen}
        ready = first.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "AwaitingChecklist")
        assert first.condition("Reconciling")
        first.passes()
        assert first.selected() == first.world.revision
        assert first.condition("Ready")["status"] == "True"

    def test_one_that_fails_stalls_with_what_failed(self, first: Checked) -> None:
        """Ready is False with the check and its reason, the Job stays for its log, and nothing is selected."""
        first.fails()
        stalled = first.condition("Stalled")
        assert (first.condition("Ready")["reason"], stalled["reason"]) == ("ChecklistFailed", "ChecklistFailed")
        assert FAILED["message"] in stalled["message"]
        assert first.selected() == "none"
        assert len(first.jobs()) == 1
        failed = first.jobs()
        first.world.after(60).ask("retry", first.world.revision)
        first.settle()
        assert len(first.jobs()) == 1
        assert first.jobs() != failed
        first.passes()
        assert first.condition("Ready")["status"] == "True"

    def test_nor_does_one_that_takes_its_place(self, first: Checked) -> None:
        """A change before anything serves opens the Service to nobody, not for a moment either."""
        before = first.jobs()
        first.world.edit(template={"image": "agent:2"})
        for _ in range(6):
            first.world.step()
            assert first.selected() == "none"
            for name in first.jobs():
                first.job(name)["status"] = {"active": 1}
        assert len(first.jobs()) == 1
        assert first.jobs() != before

    def test_what_an_operator_without_revisions_made_goes_on(self, world: Any) -> None:
        """Pods of before serve until the first revision has passed: nothing that runs is cut off."""
        one = Checked(world)
        old = one.world.put(world(template={"image": "agent:0"}).settle().child("Deployment"))
        old["metadata"]["name"] = "desk"
        old["metadata"]["labels"].pop(REVISION)
        one.world.objects = {ObjectRef("Deployment", "shop", "desk"): old}
        one.settle()
        assert one.rollout["reason"] == "AwaitingChecklist"
        assert one.selected() is None


class TestCanary:
    def test_the_job_waits_for_a_pod_to_ask(self, first: Checked) -> None:
        """None before the first pod is ready."""
        first.passes()
        first.world.edit(template={"image": "agent:2"})
        first.world.unready.add(first.world.revision)
        made = set(first.made)
        assert first.settle().made == made
        first.world.unready.clear()
        first.world.rolled_out()
        assert len(first.settle().made - made) == 1

    def test_it_gets_its_weight_once_it_has_passed(self, second: Checked) -> None:
        """Until then stable has all; the Job stays as long as the rollout, and goes with it."""
        assert second.rollout["reason"] == "AwaitingChecklist"
        assert second.rollout.get("currentWeight", 0) == 0
        second.passes()
        assert second.rollout["currentWeight"] == 25
        assert len(second.jobs()) == 1
        canary = second.rollout["canaryRevision"]
        second.world.ask("promote", canary)
        second.settle()
        assert second.rollout["stableRevision"] == canary
        assert second.jobs() == []

    def test_what_failed_is_told_and_rolled_back(self, second: Checked) -> None:
        """The figure is the check and its reason; the Job stays for its log until the spec changes."""
        stable = second.rollout["stableRevision"]
        second.fails()
        assert (second.rollout["phase"], second.rollout["reason"]) == ("Aborting", "ChecklistFailed")
        assert FAILED["message"] in second.rollout["message"]
        assert FAILED["message"] in second.condition("Ready")["message"]
        assert second.selected() == stable
        assert len(second.jobs()) == 1
        second.world.edit(template={"image": "agent:1"})
        assert second.settle().jobs() == []

    def test_retry_is_a_new_job(self, second: Checked) -> None:
        """What the one before has found plays no part any more."""
        second.fails()
        failed = second.jobs()
        second.world.after(60).ask("retry", second.world.revision)
        second.settle()
        assert second.rollout["reason"] == "AwaitingChecklist"
        assert len(second.jobs()) == 1
        assert second.jobs() != failed
        assert second.passes().rollout["currentWeight"] == 25

    def test_other_checks_are_a_new_job(self, second: Checked) -> None:
        """Whoever leaves a check out while it is waited for has the others made, without it."""
        before = second.jobs()
        second.world.edit(rollout={**CANARY, "checklist": {"skip": ["models"]}})
        second.settle()
        assert len(second.jobs()) == 1
        assert second.jobs() != before

    def test_without_the_field_it_goes_on(self, second: Checked) -> None:
        """Taken out of the spec, nothing is waited for, and the Job goes."""
        second.world.edit(rollout={name: value for name, value in CANARY.items() if name != "checklist"})
        second.settle()
        assert second.rollout["currentWeight"] == 25
        assert second.jobs() == []

    def test_another_change_needs_a_checklist_of_its_own(self, second: Checked) -> None:
        """The Job of a revision that isn't wanted any more goes, finished or not."""
        before = second.jobs()
        second.world.edit(template={"image": "agent:3"})
        second.settle()
        assert len(second.jobs()) == 1
        assert second.jobs() != before

    def test_a_suspended_agent_has_none(self, second: Checked) -> None:
        """There is nobody to ask."""
        second.world.edit(suspend=True)
        assert second.settle().jobs() == []


class TestNotKnown:
    def test_what_could_not_be_checked_is_waited_for(self, second: Checked) -> None:
        """The message says what the last try lacked; at the deadline it is rolled back with that."""
        second.says(2, INCOMPLETE).settle()
        assert INCOMPLETE["message"] in second.rollout["message"]
        assert second.rollout["phase"] == "Starting"
        second.world.after(601)
        second.settle()
        assert (second.rollout["phase"], second.rollout["reason"]) == ("Aborting", "ProgressDeadlineExceeded")
        assert INCOMPLETE["message"] in second.rollout["message"]
        assert second.jobs() == [], "it would go on trying"

    @pytest.mark.parametrize("why", ["BackoffLimitExceeded", "DeadlineExceeded"])
    def test_a_job_that_gave_up_is_made_again(self, second: Checked, why: str) -> None:
        """That is no verdict: the same Job begins anew, within the deadline."""
        (name,) = second.jobs()
        second.says(2, INCOMPLETE).ends("Failed", why)
        second.made.clear()
        second.settle()
        assert second.made == {name}
        assert second.rollout["phase"] == "Starting"

    def test_a_pod_that_is_heard_of_late(self, second: Checked) -> None:
        """The Job's end may be known before its pod's: the reason is waited for, and the verdict with it."""
        second.says(1, FAILED)
        pod = second.world.pods.pop()
        running = {**pod, "status": {"phase": "Running"}}
        second.world.pods.append(running)
        second.ends("Failed", "PodFailurePolicy").settle()
        assert second.rollout["phase"] == "Starting"
        second.world.pods.remove(running)
        second.world.pods.append(pod)
        second.settle()
        assert FAILED["message"] in second.rollout["message"]

    def test_a_verdict_without_a_pod_is_one_all_the_same(self, second: Checked) -> None:
        """Its pod may be gone with its node."""
        second.ends("Failed", "PodFailurePolicy").settle()
        assert second.rollout["reason"] == "ChecklistFailed"

    def test_what_is_no_report_is_not_repeated(self, second: Checked) -> None:
        """A command that broke leaves lines of its log, which may hold anything: the message says where to look."""
        line = {"event": "refused", "reason": "CardDeclined", "message": "customer 4711"}
        second.says(1, line).ends("Failed", "PodFailurePolicy").settle()
        assert "4711" not in json.dumps(second.world.status())
        assert f"kubectl logs job/{second.jobs()[0]}" in second.rollout["message"]
