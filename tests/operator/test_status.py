"""The status that is reported: conditions, phase, and when it is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_operator.reconcile.policies.base import ChildProblem
from supportfleet_operator.reconcile.status import is_current, news

DATABASE = {"secretRef": {"name": "db"}}


def status(one: Any, *problems: ChildProblem) -> dict[str, Any]:
    found: dict[str, Any] = one.status(*problems)
    return found


def conditions(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in found["conditions"]}


class TestConditions:
    def test_health(self, world: Any) -> None:
        """A Ready agent has neither Reconciling nor Stalled."""
        one = world.with_model(database=DATABASE, replicas=2).applied()
        found = status(one)
        assert conditions(found) == {
            "Ready": ("True", "Available"),
            "Accepted": ("True", "Valid"),
            "ModelSynced": ("True", "Synced"),
            "Progressing": ("False", "Stable"),
        }
        assert found["phase"] == "Ready"
        assert (found["replicas"], found["readyReplicas"], found["updatedReplicas"]) == (2, 2, 2)
        assert found["model"] == {"version": "1", "digest": one.digest, "loadedPods": 2}
        assert found["selector"] == "app.kubernetes.io/component=agent,supportfleet.dev/agent=desk"
        assert found["observedGeneration"] == 1

    def test_progress(self, world: Any) -> None:
        """On its way an agent is Reconciling."""
        found = status(world())
        assert conditions(found)["Ready"] == ("False", "Progressing")
        assert conditions(found)["Reconciling"] == ("True", "Progressing")
        assert "Stalled" not in conditions(found)
        assert found["phase"] == "Pending"

    def test_trouble(self, world: Any) -> None:
        """What takes a change from outside is Stalled, and not Reconciling."""
        one = world().applied()
        one.waiting("ImagePullBackOff")
        found = status(one)
        assert conditions(found)["Stalled"] == ("True", "ImagePullFailed")
        assert "Reconciling" not in conditions(found)
        assert found["phase"] == "Degraded"

    def test_suspension(self, world: Any) -> None:
        """A suspended agent is not Ready, and nothing is under way or wrong."""
        found = status(world.with_model(suspend=True).report("ModelSynced", "True", reason="Synced").applied())
        assert conditions(found) == {
            "Ready": ("False", "Suspended"),
            "Accepted": ("True", "Valid"),
            "ModelSynced": ("True", "Synced"),
            "Progressing": ("False", "Suspended"),
        }
        assert found["phase"] == "Suspended"

    def test_an_invalid_spec(self, world: Any) -> None:
        """It is not accepted; what is known of the pods and the model stays."""
        one = world.with_model().applied()
        one.agent["status"]["model"] = {"version": "1", "digest": one.digest}
        one.report("ModelSynced", "True", reason="Synced")
        one.agent["spec"]["replicas"] = "many"
        found = status(one)
        assert conditions(found)["Accepted"] == ("False", "InvalidSpec")
        assert conditions(found)["Stalled"] == ("True", "InvalidSpec")
        assert conditions(found)["ModelSynced"] == ("True", "Synced")
        assert found["replicas"] == 1
        assert found["model"]["digest"] == one.digest

    def test_syncing_a_model(self, world: Any) -> None:
        """The phase says so, and pods of before are counted on."""
        one = world.with_model().applied()
        one.edit(model={**one.agent["spec"]["model"], "version": "2", "digest": "sha256:" + "b" * 64})
        found = status(one)
        assert found["phase"] == "SyncingModel"
        assert conditions(found)["ModelSynced"] == ("False", "Downloading")
        assert found["model"] == {"version": "1", "digest": one.digest, "loadedPods": 1}

    def test_pods_during_a_rollout(self, world: Any) -> None:
        """Pods of all revisions are counted, and those of the spec's own as updated."""
        manual = {"strategy": "Canary", "steps": [{"setWeight": 50}, {"pause": {}}]}
        one = world(database=DATABASE, replicas=2, rollout=manual).applied()
        one.edit(template={"image": "agent:2"}).settle()
        found = status(one)
        assert (found["replicas"], found["readyReplicas"], found["updatedReplicas"]) == (4, 4, 2)
        assert conditions(found)["Progressing"][0] == "False", "it waits for a person"
        assert conditions(found)["Ready"][0] == "False"
        assert (found["rollout"]["phase"], found["rollout"]["currentWeight"]) == ("Paused", 50)

    def test_what_keeps_the_sync_from_running_is_its_reason(self, world: Any) -> None:
        """A Job whose pod cannot be scheduled is not downloading."""
        one = world.with_model().applied(but="Deployment")
        one.child("Job")["status"] = {"active": 1}
        one.waiting("ImagePullBackOff", component="model-sync", container="sync-model")
        assert conditions(status(one))["ModelSynced"] == ("False", "ImagePullFailed")

    def test_a_problem_of_the_round(self, world: Any) -> None:
        """What the writes met is the reason."""
        problem = ChildProblem(next(iter(world().rendered.manifests)), "NameTaken", "taken")
        assert conditions(status(world().applied(), problem))["Ready"] == ("False", "NameTaken")

    def test_without_a_model_there_is_no_condition_of_it(self, world: Any) -> None:
        """ModelSynced and status.model go with spec.model."""
        one = world().applied().report("ModelSynced", "True")
        one.agent["status"]["model"] = {"version": "1", "digest": one.digest}
        found = status(one)
        assert "ModelSynced" not in conditions(found)
        assert "model" not in found


class TestTransitions:
    def test_the_time_of_a_transition_stays_while_the_status_does(self, world: Any) -> None:
        """Reason and message may change; lastTransitionTime moves only with True, False and Unknown."""
        one = world().applied().report("Ready", "True", seconds_ago=500)
        ready = next(found for found in status(one)["conditions"] if found["type"] == "Ready")
        assert ready["lastTransitionTime"] == one.stamp(500)
        one.rolled_out(available=0)
        ready = next(found for found in status(one)["conditions"] if found["type"] == "Ready")
        assert ready["lastTransitionTime"] == one.stamp()

    def test_the_same_status_is_not_written_again(self, world: Any) -> None:
        """A second look at the same cluster finds the status current."""
        one = world.with_model(database=DATABASE, autoscaling={"minReplicas": 1, "maxReplicas": 2}).applied()
        one.agent["status"] = status(one)
        assert is_current(one.agent, status(one.after(3600)))

    def test_conditions_of_others_are_theirs(self, world: Any) -> None:
        """A condition that another writer added makes no difference."""
        one = world().applied()
        one.agent["status"] = status(one)
        ours = copy.deepcopy(one.agent["status"])
        one.agent["status"]["conditions"].append({"type": "Backed-up", "status": "True"})
        assert is_current(one.agent, ours)

    @pytest.mark.parametrize("path", ["phase", "replicas", "conditions", "selector", "observedGeneration"])
    def test_every_part_counts(self, world: Any, path: str) -> None:
        """A status changed by hand is written again."""
        one = world().applied()
        found = status(one)
        one.agent["status"] = {key: value for key, value in found.items() if key != path}
        assert not is_current(one.agent, found)


class TestNews:
    def told(self, one: Any, after: dict[str, Any]) -> list[tuple[str, str]]:
        return [(found.type, found.reason) for found in news(one.agent, after)]

    def test_a_new_agent_is_told_of_what_matters(self, world: Any) -> None:
        """Not that it is valid, which one expects."""
        one = world.with_model()
        assert self.told(one, status(one)) == [("Normal", "ModelNotReady"), ("Normal", "Downloading")]

    def test_changes_are_told_once(self, world: Any) -> None:
        """The same status again is no news."""
        one = world.with_model().applied()
        found = status(one)
        one.agent["status"] = found
        assert self.told(one, found) == []

    def test_trouble_is_a_warning(self, world: Any) -> None:
        """A stalled agent warns; progress does not."""
        one = world().applied()
        one.agent["status"] = status(one)
        one.waiting("ImagePullBackOff")
        assert self.told(one, status(one)) == [("Warning", "ImagePullFailed")]


class Life:
    """What can happen to an agent."""

    def __init__(self, one: Any) -> None:
        self.one = one
        self.image = 1

    def reconcile(self) -> None:
        self.one.step()

    def wait(self) -> None:
        self.one.after(700)

    def edit(self) -> None:
        self.image += 1
        self.one.edit(template={"image": f"agent:{self.image}"})

    def edit_badly(self) -> None:
        self.edit()
        if self._is_valid():
            self.one.unready.add(self.one.revision)

    def suspend(self) -> None:
        self.one.edit(suspend=True)

    def resume(self) -> None:
        self.one.edit(suspend=False)

    def fail_to_pull(self) -> None:
        if self._is_valid():
            self.one.waiting("ImagePullBackOff")

    def recover(self) -> None:
        self.one.pods.clear()

    def lose_pods(self) -> None:
        self._roll_out(0)

    def regain_pods(self) -> None:
        self._roll_out(None)

    def lose_the_deployment(self) -> None:
        self.one.objects = {ref: live for ref, live in self.one.objects.items() if ref.kind != "Deployment"}

    def become_invalid(self) -> None:
        self.one.edit(replicas="many")

    def become_valid(self) -> None:
        self.one.edit(replicas=2)

    def _is_valid(self) -> bool:
        return self.one.agent["spec"]["replicas"] != "many"

    def _roll_out(self, available: int | None) -> None:
        if any(ref.kind == "Deployment" for ref in self.one.objects):
            self.one.rolled_out(available)


HAPPENINGS = [name for name in vars(Life) if not name.startswith("_")]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(HAPPENINGS), max_size=12))
def test_conditions_are_always_whole(world: Any, happenings: list[str]) -> None:
    """In any order of events Ready, Reconciling and Stalled exclude each other, and times move with the status only."""
    one = world.with_model(database=DATABASE, replicas=2).applied()
    life = Life(one)
    for step, happening in enumerate(happenings):
        getattr(life, happening)()
        found = status(one.after(step))
        told = {kind: truth for kind, (truth, _) in conditions(found).items()}
        assert [told["Ready"], told.get("Reconciling"), told.get("Stalled")].count("True") <= 1
        assert (told["Ready"] == "True") == (found["phase"] == "Ready")
        before = {c["type"]: c for c in one.agent["status"].get("conditions", [])}
        for condition in found["conditions"]:
            earlier = before.get(condition["type"], {})
            if earlier.get("status") == condition["status"]:
                assert condition["lastTransitionTime"] == earlier["lastTransitionTime"]
            assert condition["observedGeneration"] == one.agent["metadata"]["generation"]
            assert condition["message"]
        one.agent["status"] = found
