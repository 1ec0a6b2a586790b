"""What goes wrong outside the schema, on a real API server: each shows as a condition, and heals by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)

DIGEST = "sha256:" + "a" * 64


def agent(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "supportfleet.dev/v1alpha1",
        "kind": "SupportAgent",
        "metadata": {"name": name},
        "spec": {"template": {"image": "supportfleet/agent:dev"}, **spec},
    }


def model(**more: Any) -> dict[str, Any]:
    return {"model": {"uri": "s3://models/intent", "version": "1", "digest": DIGEST, **more}}


@pytest.fixture(scope="module", autouse=True)
def running(operator: Any, kubelet: Any) -> None:
    """The operator leads and the node plays."""


def kstatus(place: Any, name: str) -> set[str]:
    return {kind for kind in ("Reconciling", "Stalled") if place.condition(name, kind).get("status") == "True"}


class TestReferences:
    def test_a_missing_secret_names_the_field_and_heals(self, place: Any, eventually: Callable[..., Any]) -> None:
        """Ready and Accepted tell of the Secret; once it exists, with its key, the agent is accepted by itself."""
        place.apply(agent("lacking", database={"secretRef": {"name": "late", "key": "URL"}}))
        eventually(lambda: place.reason("lacking") == "MissingReference")
        message = place.condition("lacking", "Ready")["message"]
        assert "spec.database.secretRef" in message
        assert "'late'" in message
        assert place.reason("lacking", "Accepted") == "MissingReference"
        assert kstatus(place, "lacking") == {"Stalled"}
        place.secret("late", OTHER="x")
        eventually(lambda: "has no key 'URL'" in place.condition("lacking", "Ready")["message"], seconds=40)
        place.patch("secrets", "late", {"stringData": {"URL": "postgresql://h/d"}})
        eventually(lambda: place.is_ready("lacking"), "the agent heals", seconds=40)
        assert place.reason("lacking", "Accepted") == "Valid"
        assert kstatus(place, "lacking") == set()

    def test_a_missing_storage_class_is_named(self, place: Any, eventually: Callable[..., Any]) -> None:
        """A StorageClass that does not exist is a missing reference of the cluster."""
        cache = {"type": "PersistentVolumeClaim", "storageClassName": "no-such-class"}
        place.apply(agent("classless", **model(cache=cache)))
        eventually(
            lambda: "spec.model.cache.storageClassName" in place.condition("classless", "Ready").get("message", "")
        )
        place.delete("supportagents", "classless")


class TestModel:
    @pytest.mark.parametrize(
        ("reason", "field", "code"),
        [
            ("DigestMismatch", "spec.model.digest", 2),
            ("BucketNotFound", "spec.model.uri", 2),
            ("AccessDenied", "spec.model.credentialsSecretRef", 2),
        ],
    )
    def test_a_failed_sync_keeps_the_pods_of_before_and_is_tried_again(
        self, place: Any, kubelet: Any, eventually: Callable[..., Any], reason: str, field: str, code: int
    ) -> None:
        """The reason and field show, the running pods stay, and a later success rolls out without an edit."""
        name = reason.lower()
        place.apply(agent(name, **model()))
        eventually(lambda: place.is_ready(name))
        before = place.of("deployments", name)["spec"]["template"]
        with kubelet.told(job_report={"reason": reason, "message": "as it is"}, job_exit_code=code):
            place.apply(agent(name, **model(digest="sha256:" + "b" * 64)))
            eventually(lambda: place.reason(name, "ModelSynced") == reason)
            eventually(lambda: kstatus(place, name) == {"Stalled"})
            shown = place.condition(name, "ModelSynced")
            assert shown["status"] == "False"
            assert field in shown["message"]
            assert place.reason(name) == "ModelNotReady"
            assert place.of("deployments", name)["spec"]["template"] == before
            assert place.get("supportagents", name)["status"]["model"]["digest"] == DIGEST
            # The Job of a try that is due is replaced meanwhile, and fails as well.
            (job,) = eventually(lambda: [one for one in _jobs(place, name) if _is_failed(one)], "the Job failed")
        if reason != "DigestMismatch":  # what is wrong with the content is tried again a minute later at the earliest
            eventually(lambda: place.is_ready(name), "a later try succeeds", seconds=60)
            again = place.get("jobs", job["metadata"]["name"])
            assert again["metadata"]["uid"] != job["metadata"]["uid"]
        place.apply(agent(name, **model()))
        eventually(lambda: place.is_ready(name), "the old digest is back", seconds=30)
        place.delete("supportagents", name)

    def test_the_proof_of_a_revision_that_is_kept_stays(self, place: Any, eventually: Callable[..., Any]) -> None:
        """After a model was replaced its Job is still there, so that going back waits for nothing."""
        place.apply(agent("moves", **model()))
        eventually(lambda: place.is_ready("moves"))
        place.apply(agent("moves", **model(version="2", digest="sha256:" + "c" * 64)))
        eventually(lambda: place.get("supportagents", "moves")["status"]["model"]["version"] == "2")
        eventually(lambda: place.is_ready("moves"))
        label = "?labelSelector=supportfleet.dev/agent=moves"
        assert len(place.api.request("GET", place.path("jobs") + label)["items"]) == 2

    def test_a_claim_stays_while_a_revision_may_need_it(self, place: Any, eventually: Callable[..., Any]) -> None:
        """With a claim the Job fills it; when the cache is each pod's own again, it stays for the revision before."""
        claim = {"cache": {"type": "PersistentVolumeClaim", "storageClassName": "by-hand", "size": "1Gi"}}
        body = {"metadata": {"name": "by-hand"}, "provisioner": "nobody", "volumeBindingMode": "Immediate"}
        place.api.request("POST", "/apis/storage.k8s.io/v1/storageclasses", body)
        try:
            place.apply(agent("volume", **model(**claim)))
            eventually(lambda: place.get("persistentvolumeclaims", "volume-models"))
            _bind(place, "volume-models")
            eventually(lambda: place.is_ready("volume"), seconds=60)
            place.apply(agent("volume", **model(cache={"type": "EmptyDir"})))
            eventually(lambda: place.is_ready("volume"))
            assert "deletionTimestamp" not in place.get("persistentvolumeclaims", "volume-models")["metadata"]
        finally:
            place.delete("supportagents", "volume")
            place.api.request("DELETE", "/apis/storage.k8s.io/v1/storageclasses/by-hand")
            place.api.request("DELETE", f"/api/v1/persistentvolumes/{place.name}")


def _bind(place: Any, claim: str) -> None:
    """Provision by hand: a volume made for this claim."""
    uid = place.get("persistentvolumeclaims", claim)["metadata"]["uid"]
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand",
        "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": place.name, "name": claim, "uid": uid},
    }
    place.api.request("POST", "/api/v1/persistentvolumes", {"metadata": {"name": place.name}, "spec": spec})


def _jobs(place: Any, name: str) -> list[dict[str, Any]]:
    return [one for one in place.list("jobs") if one["metadata"]["name"].startswith(name)]


def _is_failed(job: dict[str, Any]) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(one["type"] == "Failed" and one["status"] == "True" for one in conditions)


def _is_refused(place: Any, agent: dict[str, Any]) -> bool:
    """Whether a pod that asks for what the agent's do would be refused."""
    template = agent["spec"]["template"]
    container = {"name": "agent", "image": template["image"], "resources": template["resources"]}
    pod = {"metadata": {"generateName": "trial-"}, "spec": {"containers": [container]}}
    answer = place.kubectl(
        *("create", "--dry-run=server", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}),
        check=False,
    )
    return "exceeded quota" in answer.stderr


def _pods(place: Any, name: str) -> list[dict[str, Any]]:
    label = f"?labelSelector=supportfleet.dev/agent={name}"
    found: list[dict[str, Any]] = place.api.request("GET", place.path("pods") + label)["items"]
    return found


class TestPods:
    def test_an_impossible_request_names_the_field(self, place: Any, eventually: Callable[..., Any]) -> None:
        """The scheduler's refusal shows with the field that asks for too much."""
        wanted = agent("huge")
        wanted["spec"]["template"]["resources"] = {"requests": {"cpu": "900"}}
        place.apply(wanted)
        eventually(lambda: place.reason("huge") == "Unschedulable")
        assert "spec.template.resources.requests" in place.condition("huge", "Ready")["message"]
        wanted["spec"]["template"]["resources"] = {"requests": {"cpu": "10m"}}
        place.apply(wanted)
        eventually(lambda: place.is_ready("huge"), "a lower request runs", 30)

    def test_an_image_that_cannot_be_pulled_is_named(
        self, place: Any, kubelet: Any, eventually: Callable[..., Any]
    ) -> None:
        """What the kubelet says of the image shows with the field."""
        with kubelet.told(agents_run=False):
            place.apply(agent("imageless"))
            eventually(lambda: _pods(place, "imageless"))
            waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "supportfleet/agent:dev"'}
            status = {"name": "agent", "ready": False, "restartCount": 0, "image": "i", "imageID": ""}
            for pod in _pods(place, "imageless"):
                kubelet.say(pod, {"containerStatuses": [{**status, "state": {"waiting": waiting}}]})
            eventually(lambda: place.reason("imageless") == "ImagePullFailed")
        assert "spec.template.image" in place.condition("imageless", "Ready")["message"]
        assert kstatus(place, "imageless") == {"Stalled"}
        place.delete("supportagents", "imageless")

    def test_a_quota_is_named(self, place: Any, eventually: Callable[..., Any]) -> None:
        """Pods that a ResourceQuota refuses show with the quota's own words, and come when it allows them."""
        wanted = agent("dear")
        wanted["spec"]["template"]["resources"] = {"requests": {"cpu": "2", "memory": "1Mi"}}
        body = {"metadata": {"name": "tight"}, "spec": {"hard": {"requests.cpu": "1"}}}
        place.api.request("POST", place.path("resourcequotas"), body)
        try:
            eventually(lambda: _is_refused(place, wanted), "the quota is in force")
            place.apply(wanted)
            eventually(lambda: place.reason("dear") == "QuotaExceeded", seconds=30)
            assert "spec.template.resources" in place.condition("dear", "Ready")["message"]
        finally:
            place.delete("resourcequotas", "tight")
        place.delete("supportagents", "dear")


class TestRefusals:
    def test_what_the_api_server_refuses_names_the_field_of_the_agent(
        self, place: Any, eventually: Callable[..., Any]
    ) -> None:
        """An affinity that passes the SupportAgent's schema but no Deployment's is blamed on spec.template.affinity."""
        wanted = agent("odd")
        wanted["spec"]["template"]["affinity"] = {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 500, "podAffinityTerm": {"topologyKey": "zone"}}
                ]
            }
        }
        place.apply(wanted)
        eventually(lambda: place.reason("odd") == "Refused")
        assert place.condition("odd", "Ready")["message"].startswith("spec.template.affinity: ")
        assert kstatus(place, "odd") == {"Stalled"}
        del wanted["spec"]["template"]["affinity"]
        place.apply(wanted)
        eventually(lambda: place.is_ready("odd"), seconds=30)
