"""What is decided to be written: pure decisions from what was observed."""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_operator.cluster.resources import ref_of
from supportfleet_operator.reconcile.desired import APPLIED_HASH, stamp
from supportfleet_operator.reconcile.drift import differences
from supportfleet_operator.reconcile.plan import Plan, plan
from supportfleet_operator.reconcile.settlements import Holder, Settlement, fingerprint

REVISION = "supportfleet.dev/revision"
DATABASE = {"secretRef": {"name": "db"}}
AUTOSCALING = {"minReplicas": 2, "maxReplicas": 5}


def planned(world: Any) -> Plan:
    return plan(world.observed(), world.now)


def written(found: Plan) -> list[str]:
    return [write.ref.kind for write in found.writes]


def removed(found: Plan) -> list[str]:
    return [removal.ref.kind for removal in (*found.before, *found.after)]


class TestCreating:
    def test_a_new_agent_gets_everything(self, world: Any) -> None:
        """Without a model all children are created at once, the autoscaler when there is something to scale."""
        one = world(database=DATABASE, autoscaling=AUTOSCALING)
        assert written(planned(one)) == [
            "ControllerRevision",
            "ServiceAccount",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Service",
            "ConfigMap",
            "Service",
            "Deployment",
        ]
        one.applied(but="HorizontalPodAutoscaler")
        assert written(planned(one)) == ["HorizontalPodAutoscaler"]

    def test_a_deployment_under_an_autoscaler_starts_with_enough_pods(self, world: Any) -> None:
        """The manifest has no number, and a Deployment created without one would have a single pod."""
        one = world(database=DATABASE, autoscaling=AUTOSCALING, replicas=4)
        (write,) = [write for write in planned(one).writes if write.ref.kind == "Deployment"]
        assert "replicas" not in write.manifest["spec"]
        assert write.replicas == 4

    def test_every_manifest_carries_its_hash(self, world: Any) -> None:
        """The annotation says what was applied."""
        for write in planned(world()).writes:
            assert len(stamp(write.manifest)) == 16

    def test_what_has_no_pods_is_not_created_for_that(self, world: Any) -> None:
        """A revision that is kept comes back without its Deployment, which may be what could not be created."""
        one = world().applied()
        before = one.revision
        one.edit(template={"image": "agent:2"}).settle().after(3600).settle()
        gone = ref_of(one.child("Deployment", before))
        del one.objects[gone]
        assert gone in one.rendered.manifests
        assert planned(one).is_empty
        one.edit(template={"image": "agent:1"}).settle()
        assert one.objects[gone]["spec"]["replicas"] == 1

    def test_an_invalid_spec_changes_nothing(self, world: Any) -> None:
        """What runs goes on when the spec cannot be understood."""
        one = world().applied()
        one.agent["spec"]["replicas"] = "many"
        assert planned(one).is_empty


class TestGate:
    def test_nothing_runs_before_the_model_is_verified(self, world: Any) -> None:
        """With a model the Job comes first, and there is no Deployment."""
        found = planned(world.with_model())
        assert "Job" in written(found)
        assert "Deployment" not in written(found)

    def test_a_verified_model_opens_the_gate(self, world: Any) -> None:
        """Once the Job is complete the rest is written."""
        one = world.with_model().applied(but="Deployment")
        assert written(planned(one)) == ["Deployment"]

    def test_a_new_model_leaves_the_running_one_alone(self, world: Any) -> None:
        """While the next version is being verified, or fails, nothing of the stable revision is touched."""
        one = world.with_model().applied()
        stable = one.revision
        one.edit(model={**one.agent["spec"]["model"], "digest": "sha256:" + "b" * 64}, config={"other": True})
        found = planned(one)
        assert "Deployment" not in written(found)
        assert stable not in {write.manifest["metadata"]["labels"].get(REVISION) for write in found.writes}

    def test_what_runs_as_desired_is_put_right_without_its_job(self, world: Any) -> None:
        """A Job that somebody deleted does not stop hand edits from being undone."""
        one = world.with_model().applied(but="Job")
        one.child("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
        assert sorted(written(planned(one))) == ["Deployment", "Job"]

    def test_a_suspended_agent_waits_for_no_model(self, world: Any) -> None:
        """Suspending scales down at once, whatever the model's Job does."""
        one = world.with_model().applied()
        one.child("Job")["status"] = {}
        one.edit(suspend=True)
        assert "Deployment" in written(planned(one))


class TestCorrecting:
    def test_a_converged_agent_needs_nothing(self, world: Any) -> None:
        """Everything as applied: an empty plan, with a model, an autoscaler and all."""
        assert planned(world.with_model(database=DATABASE, autoscaling=AUTOSCALING).applied()).is_empty

    def test_an_edit_reaches_only_its_child(self, world: Any) -> None:
        """Another Service port is a write of the Services alone."""
        one = world().applied().edit(service={"port": 8080})
        assert set(written(planned(one))) == {"Service"}

    def test_a_removed_field_is_noticed_by_its_hash(self, world: Any) -> None:
        """A manifest that lost a field is a subset of what is live: the hash tells."""
        one = world(networkPolicy={"allowEgress": []}).applied()
        one.edit(networkPolicy={})
        assert written(planned(one)) == ["NetworkPolicy"]

    def test_a_hand_edit_that_only_adds_is_noticed_by_its_manager(self, world: Any) -> None:
        """A variable that somebody added differs from nothing that is rendered, but it was added by hand."""
        one = world().applied()
        one.child("Deployment")["metadata"]["managedFields"] = [
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}}
        ]
        (write,) = planned(one).writes
        assert write.tools == ("kubectl-edit",)

    def test_a_child_that_is_being_deleted_is_waited_for(self, world: Any) -> None:
        """Writing to it would be in vain; it is made again when it is gone."""
        one = world().applied()
        one.child("Service")["metadata"]["deletionTimestamp"] = one.stamp()
        assert planned(one).is_empty

    def test_a_job_is_never_corrected(self, world: Any) -> None:
        """Its name is the hash of its spec."""
        one = world.with_model().applied()
        del one.child("Job")["metadata"]["annotations"][APPLIED_HASH]
        assert planned(one).is_empty

    def test_a_claim_only_grows(self, world: Any) -> None:
        """A larger size is written; one that somebody enlarged further is left."""
        cache = {"type": "PersistentVolumeClaim", "size": "2Gi"}
        one = world(
            model={"uri": "s3://models/intent", "version": "1", "digest": world.digest, "cache": cache}
        ).applied()
        storage = one.child("PersistentVolumeClaim")["spec"]["resources"]["requests"]
        storage["storage"] = "5Gi"
        assert planned(one).is_empty
        storage["storage"] = "1Gi"
        assert written(planned(one)) == ["PersistentVolumeClaim"]


class TestSettlements:
    def rewritten(self, world: Any, **more: Any) -> Any:
        """An agent whose image a webhook rewrites, after the write that showed it."""
        one = world().applied()
        live = one.child("Deployment")
        live["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example/agent:1"
        manifest = one.rendered.manifests[next(ref for ref in one.objects if ref.kind == "Deployment")]
        left = fingerprint(differences(manifest, live))
        one.settlements[live["metadata"]["uid"]] = Settlement(
            stamp(manifest), left, at=one.now, **{"holders": (), **more}
        )
        return one

    def test_what_the_server_made_of_a_write_is_accepted(self, world: Any) -> None:
        """A value that a webhook rewrote is not written again and again."""
        assert planned(self.rewritten(world)).is_empty

    def test_another_difference_is_written(self, world: Any) -> None:
        """Only that outcome is accepted, not what comes later."""
        one = self.rewritten(world)
        one.child("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"] = "evil.example/agent:1"
        assert written(planned(one)) == ["Deployment"]

    def test_another_spec_is_written(self, world: Any) -> None:
        """A change of the spec is another write."""
        one = self.rewritten(world).edit(database=DATABASE, replicas=2)
        assert "Deployment" in written(planned(one))

    def test_a_held_field_is_asked_for_again_later(self, world: Any) -> None:
        """Another manager may have let go meanwhile."""
        one = self.rewritten(world, holders=(Holder("policy", ".spec.x"),))
        assert planned(one).is_empty
        later = plan(one.observed(), one.now + dt.timedelta(minutes=6))
        assert written(later) == ["Deployment"]


class TestAutoscaler:
    def test_the_number_is_handed_over_before_it_is_dropped(self, world: Any) -> None:
        """While we still hold it, dropping it would reset it to one: the live number goes along."""
        one = world(database=DATABASE, replicas=5).applied()
        one.child("Deployment")["spec"]["replicas"] = 5
        one.edit(autoscaling=AUTOSCALING)
        write = next(write for write in planned(one).writes if write.ref.kind == "Deployment")
        assert write.replicas == 5

    def test_a_deployment_without_pods_gets_enough_to_start_from(self, world: Any) -> None:
        """An autoscaler ignores a Deployment of 0, such as one that was suspended."""
        one = world(database=DATABASE, suspend=True).applied()
        one.edit(suspend=False, autoscaling=AUTOSCALING)
        write = next(write for write in planned(one).writes if write.ref.kind == "Deployment")
        assert write.replicas == 2

    def test_its_number_is_no_difference(self, world: Any) -> None:
        """Whatever the autoscaler sets, there is nothing to write."""
        one = world(database=DATABASE, autoscaling=AUTOSCALING).applied()
        one.child("Deployment")["spec"]["replicas"] = 4
        assert planned(one.rolled_out()).is_empty

    def test_it_goes_before_the_number_is_set(self, world: Any) -> None:
        """Otherwise it would set its own again."""
        one = world(database=DATABASE, autoscaling=AUTOSCALING).applied()
        spec = one.agent["spec"]
        del spec["autoscaling"]
        found = planned(one.edit(replicas=3))
        assert [removal.ref.kind for removal in found.before] == ["HorizontalPodAutoscaler"]
        assert "Deployment" in written(found)


class TestRemoving:
    def test_what_is_no_longer_wanted_goes(self, world: Any) -> None:
        """Budget and policy leave with what asked for them."""
        one = world(database=DATABASE, replicas=2).applied()
        one.edit(replicas=1, networkPolicy={"enabled": False})
        assert sorted(removed(planned(one))) == ["NetworkPolicy", "PodDisruptionBudget"]

    def test_only_what_the_agent_controls_goes(self, world: Any) -> None:
        """An object that carries our labels but not our owner reference is somebody's."""
        one = world().applied()
        manifest = next(m for ref, m in one.rendered.manifests.items() if ref.kind == "NetworkPolicy")
        one.objects = {ref: live for ref, live in one.objects.items() if ref.kind != "NetworkPolicy"}
        one.put(manifest, owned=False)
        one.edit(networkPolicy={"enabled": False})
        assert removed(planned(one)) == []

    def test_a_claim_stays_as_long_as_a_revision_may_come_back_to_it(self, world: Any) -> None:
        """It goes with the last revision that keeps its models there."""
        model = {"uri": "s3://models/intent", "version": "1", "digest": world.digest}
        one = world(
            model={**model, "cache": {"type": "PersistentVolumeClaim", "size": "1Gi"}},
            rollout={"revisionHistoryLimit": 1},
        ).applied()
        for number in range(2, 6):
            one.edit(model=model, template={"image": f"agent:{number}"})
            if number < 4:
                assert "PersistentVolumeClaim" in {ref.kind for ref in one.objects}
            one.settle().after(3600).settle()
        assert "PersistentVolumeClaim" not in {ref.kind for ref in one.objects}


class TestJobs:
    def test_an_unfinished_job_goes_at_once(self, world: Any) -> None:
        """Nobody waits for its outcome any more, once no revision that is kept names it."""
        one = world.with_model(rollout={"revisionHistoryLimit": 1}).applied()
        stray = copy.deepcopy(one.child("Job"))
        stray["metadata"]["name"] = "desk-model-0000000000"
        one.put(stray)["status"] = {"active": 1}
        assert removed(planned(one)) == ["Job"]

    def test_an_unfinished_job_of_a_revision_that_is_only_kept_goes(self, world: Any) -> None:
        """A canary that was given up asks for no proof any more; its Job would go on failing for nothing."""
        one = world.with_model().applied()
        first = one.child("Job")["metadata"]["name"]
        one.edit(template={"image": "agent:no-such"})
        one.step()
        for ref, live in one.objects.items():
            if ref.kind == "Job" and ref.name != first:
                live["status"] = {"active": 1}
        one.edit(template={"image": "agent:1"}).settle()
        assert [ref.name for ref in one.objects if ref.kind == "Job"] == [first]

    def test_the_proof_of_a_revision_stays_as_long_as_the_revision(self, world: Any) -> None:
        """Going back to it need not verify again; when the revision goes, its Job does."""
        one = world.with_model(rollout={"revisionHistoryLimit": 1}).applied()
        first = one.child("Job")["metadata"]["name"]
        for version in "2345":
            one.edit(model={**one.agent["spec"]["model"], "version": version})
            if version == "3":
                assert first in {ref.name for ref in one.objects}
            one.settle().after(3600).settle()
        assert first not in {ref.name for ref in one.objects}

    @pytest.mark.parametrize(
        ("reason", "failing", "wait"),
        [
            ("StorageUnreachable", 0, 10),
            ("StorageUnreachable", 100, 50),
            ("StorageUnreachable", 100_000, 300),
            ("DigestMismatch", 0, 60),
            ("DigestMismatch", 400, 200),
        ],
    )
    def test_a_failed_one_is_tried_again_later_and_later(
        self, world: Any, reason: str, failing: float, wait: float
    ) -> None:
        """After half of the time it has been failing: ten seconds (for content a minute) to five minutes."""
        for ended in (wait - 1, wait + 1):
            one = self.failed(world, reason, failing, ended)
            assert (removed(planned(one)) == ["Job"]) is (ended > wait)

    def failed(self, world: Any, reason: str, failing: float, ended: float) -> Any:
        """An agent whose model Job has failed a while ago."""
        one = world.with_model().applied(but="Deployment")
        failed = {"type": "Failed", "status": "True", "lastTransitionTime": one.stamp(ended)}
        one.child("Job")["status"] = {"conditions": [failed]}
        terminated = {
            "exitCode": 3,
            "message": f'{{"reason": "{reason}", "message": "m"}}',
            "finishedAt": one.stamp(ended),
        }
        one.pod("model-sync", containerStatuses=[{"name": "sync-model", "state": {"terminated": terminated}}])
        return one.report("ModelSynced", "False", seconds_ago=failing + ended)

    def test_jobs_of_a_suspended_agent_stay(self, world: Any) -> None:
        """Resuming need not verify again."""
        one = world.with_model().applied().edit(suspend=True)
        assert "Job" not in removed(planned(one))


models = st.builds(
    lambda version, cache: {
        "uri": "s3://models/intent",
        "version": version,
        "digest": "sha256:" + "a" * 64,
        "cache": {"type": cache},
    },
    st.sampled_from(["1", "2"]),
    st.sampled_from(["EmptyDir", "PersistentVolumeClaim"]),
)
specs = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 4),
        "suspend": st.booleans(),
        "networkPolicy": st.fixed_dictionaries({"enabled": st.booleans()}),
    },
    optional={
        "autoscaling": st.builds(
            lambda low, more: {"minReplicas": low, "maxReplicas": low + more}, st.integers(1, 3), st.integers(0, 3)
        ),
        "model": models,
        "service": st.fixed_dictionaries({"port": st.integers(80, 90)}),
        "config": st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)),
    },
)


@settings(deadline=None, max_examples=80)
@given(before=specs, after=specs)
def test_every_plan_leads_to_rest(world: Any, before: dict[str, Any], after: dict[str, Any]) -> None:
    """From any spec to any other: plans end after a few rounds, with exactly the desired children."""
    base = {"template": {"image": "agent:1", "resources": {"requests": {"cpu": "1"}}}, "database": DATABASE}
    one = world(**base, **before).settle()
    one.agent["spec"] = {**base, **after}
    one.agent["metadata"]["generation"] += 1
    one.settle().after(3600).settle()
    kept = {"Job", "ControllerRevision", "PersistentVolumeClaim"}
    wanted = {ref for ref in one.rendered.manifests if ref.kind not in kept}
    assert {ref for ref in one.objects if ref.kind not in kept} == wanted
    if not one.agent["spec"]["suspend"]:
        assert one.rollout["stableRevision"] == one.revision


@settings(deadline=None, max_examples=80)
@given(before=specs, after=specs)
def test_no_plan_shrinks_a_deployment_under_an_autoscaler(
    world: Any, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Whatever is edited, once an autoscaler decides, no plan takes pods away that it did not take."""
    base = {"template": {"image": "agent:1", "resources": {"requests": {"cpu": "1"}}}, "database": DATABASE}
    scaled = {"suspend": False, "autoscaling": {"minReplicas": 2, "maxReplicas": 9}}
    one = world(**{**base, **before, **scaled}).settle()
    one.child("Deployment")["spec"]["replicas"] = 7
    one.rolled_out()
    one.agent["spec"] = {**base, **after, **scaled}
    one.agent["metadata"]["generation"] += 1
    for _ in range(20):
        one.step()
        assert one.child("Deployment", one.rollout["stableRevision"])["spec"]["replicas"] == 7


@given(before=specs)
@settings(deadline=None, max_examples=40)
def test_planning_changes_nothing_it_looks_at(world: Any, before: dict[str, Any]) -> None:
    """A plan is a pure function: the same observation gives the same plan, and is left as it was."""
    one = world(template={"image": "agent:1", "resources": {"requests": {"cpu": "1"}}}, database=DATABASE, **before)
    observed = one.observed()
    text = repr(observed)
    assert plan(observed, one.now) == plan(observed, one.now)
    assert repr(observed) == text
