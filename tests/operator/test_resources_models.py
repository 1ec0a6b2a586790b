"""Models that are followed: by a channel's pointer in the bucket, and by pods that load another one as they run."""

import json
from typing import Any, Final

import pytest

from supportfleet_operator.api import Artifact, SupportAgent, parse
from supportfleet_operator.resources import (
    MODEL_DIGEST,
    Routing,
    at_revision,
    channel_job,
    resolved,
    revision_children,
    revision_name,
    selector,
    shared_children,
    snapshot,
)

FIRST, SECOND = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
STORE: Final[dict[str, Any]] = {
    "uri": "s3://models/intent",
    "endpoint": "http://s3:9000",
    "credentialsSecretRef": {"name": "s3"},
}
MODEL: Final = {**STORE, "version": "1", "digest": FIRST}
CHANNEL: Final = {**STORE, "channel": "stable"}
CLAIM: Final[dict[str, Any]] = {"cache": {"type": "PersistentVolumeClaim"}}
HOT: Final[dict[str, Any]] = {"reload": "Hot"}
REV: Final = "r0123456"


def agent(image: str = "agent:1", **model: Any) -> SupportAgent:
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "helper", "namespace": "shop", "uid": "u-1"},
            "spec": {"template": {"image": image}, "model": model},
        }
    )


def deployment(wanted: SupportAgent) -> dict[str, Any]:
    return revision_children(wanted, REV, replicas=1, autoscaled=False).deployment


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


class TestChannel:
    def test_a_resolved_channel_is_the_same_as_its_version(self) -> None:
        """Once it is known where the channel points, the agent is what it would be with that version in its spec."""
        followed = resolved(agent(**CHANNEL, channelPollSeconds=10), "1", FIRST)
        assert followed.spec.model is not None
        assert followed.spec.model.channel is None
        assert revision_name(followed) == revision_name(agent(**MODEL))
        assert snapshot(followed) == snapshot(agent(**MODEL))
        assert deployment(followed) == deployment(agent(**MODEL))

    def test_where_it_points_now_is_another_revision(self) -> None:
        """A pointer that moved is a change of the model like any other."""
        first, second = (resolved(agent(**CHANNEL), *one) for one in (("1", FIRST), ("2", SECOND)))
        assert revision_name(first) != revision_name(second)
        back = at_revision(second, json.loads(json.dumps(snapshot(first))))
        assert revision_name(back) == revision_name(first)

    def test_an_agent_that_follows_none_stays_as_it_is(self) -> None:
        """What the status remembers of a channel doesn't touch a version that the spec names."""
        assert resolved(agent(**MODEL), "2", SECOND) == agent(**MODEL)

    def test_nothing_is_made_of_a_channel_that_is_not_resolved(self) -> None:
        """No revision can be named or rendered before the channel was asked; what revisions share can be."""
        with pytest.raises(ValueError, match="is its channel not resolved yet"):
            revision_name(agent(**CHANNEL))
        with pytest.raises(ValueError, match="is its channel not resolved yet"):
            deployment(agent(**CHANNEL))
        assert next(one["kind"] for one in shared_children(agent(**CHANNEL), Routing())) == "ServiceAccount"

    def test_the_job_asks_the_bucket_and_tries_once(self) -> None:
        """It knows the bucket, the channel and the credentials, and its next try is the next look."""
        job = channel_job(agent(**CHANNEL), 7)
        (container,) = pod(job)["containers"]
        env = variables(container)
        assert job["metadata"]["name"] == "helper-channel-7"
        assert container["args"] == ["resolve-channel"]
        assert (env["MODEL_BUCKET"], env["MODEL_CHANNEL"]) == ("s3://models/intent", "stable")
        assert env["AWS_ENDPOINT_URL"] == "http://s3:9000"
        assert env["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}
        assert not env.keys() & {"MODEL_VERSION", "MODEL_DIGEST"}
        assert (job["spec"]["backoffLimit"], pod(job)["restartPolicy"]) == (0, "Never")
        assert job["spec"]["activeDeadlineSeconds"] > 0

    def test_its_pods_answer_no_customers(self) -> None:
        """No Service and no disruption budget counts the Job's pods."""
        labels = channel_job(agent(**CHANNEL), 1)["spec"]["template"]["metadata"]["labels"]
        assert not selector(agent(**CHANNEL)).items() <= labels.items()

    def test_a_pointer_can_lie_on_the_claim(self) -> None:
        """Where models are on a claim the Job can read it, and not write to it."""
        spec = pod(channel_job(agent(uri="file:///models/incoming", channel="stable", **CLAIM), 1))
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]
        assert "models" in [one["name"] for one in spec["volumes"]]
        assert "models" not in [one["name"] for one in pod(channel_job(agent(**CHANNEL), 1))["volumes"]]

    def test_an_agent_without_a_channel_has_no_such_job(self) -> None:
        """Asking for the Job of a channel that there is not is a mistake of the operator's."""
        with pytest.raises(ValueError, match="follows no channel"):
            channel_job(agent(**MODEL), 1)


class TestHot:
    @pytest.mark.parametrize("change", [{"version": "2", "digest": SECOND}, {"uri": "s3://models/other"}])
    @pytest.mark.parametrize("cache", [{}, CLAIM])
    def test_another_model_is_no_revision_and_touches_no_pod(
        self, change: dict[str, Any], cache: dict[str, Any]
    ) -> None:
        """With Hot, a change of what is loaded leaves the revision, its Deployment and so its pods as they are."""
        before, after = agent(**MODEL, **cache, **HOT), agent(**{**MODEL, **change}, **cache, **HOT)
        assert revision_name(before) == revision_name(after)
        assert deployment(before) == deployment(after)

    @pytest.mark.parametrize("cache", [{}, CLAIM])
    def test_another_model_is_verified_by_a_job_of_its_own(self, cache: dict[str, Any]) -> None:
        """The Job that must succeed before pods are told names the version and digest."""
        jobs = [
            revision_children(agent(**{**MODEL, **one}, **cache, **HOT), REV, replicas=1, autoscaled=False).model_job
            for one in ({}, {"version": "2", "digest": SECOND})
        ]
        names = {job["metadata"]["name"] for job in jobs if job is not None}
        env = [variables(pod(job)["containers"][0]) for job in jobs if job is not None]
        assert len(names) == 2
        assert [(one["MODEL_VERSION"], one["MODEL_DIGEST"]) for one in env] == [("1", FIRST), ("2", SECOND)]

    def test_hot_itself_is_another_revision(self) -> None:
        """Pods that read a pointer are not those that were made for one model."""
        assert revision_name(agent(**MODEL, **HOT)) != revision_name(agent(**MODEL))

    def test_what_a_pod_fetches_with_is_still_a_revision(self) -> None:
        """The credentials, the endpoint and the image belong to the pod, hot or not."""
        hot = revision_name(agent(**MODEL, **HOT))
        assert hot != revision_name(agent(**{**MODEL, "endpoint": "http://other"}, **HOT))
        assert hot != revision_name(agent("agent:2", **MODEL, **HOT))

    def test_pods_follow_the_file_and_fetch_for_themselves(self) -> None:
        """They have the pointer, mounted as a folder so that it changes, and the storage's address and credentials."""
        manifest = deployment(agent(**MODEL, **HOT))
        spec = pod(manifest)
        env = variables(spec["containers"][0])
        assert env["MODEL_FILE"] == "/etc/supportfleet-model/model.json"
        assert env["MODEL_DIR"] == "/models"
        assert env["AWS_ENDPOINT_URL"] == "http://s3:9000"
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= env.keys()
        assert not env.keys() & {"MODEL_BUCKET", "MODEL_VERSION", "MODEL_DIGEST"}
        mounts = {one["mountPath"]: one for one in spec["containers"][0]["volumeMounts"]}
        assert mounts["/etc/supportfleet-model"] == {
            "name": "model-pointer",
            "mountPath": "/etc/supportfleet-model",
            "readOnly": True,
        }
        assert "readOnly" not in mounts["/models"]
        assert {"name": "model-pointer", "configMap": {"name": "helper-model"}} in spec["volumes"]
        assert "initContainers" not in spec
        assert MODEL_DIGEST not in manifest["spec"]["template"]["metadata"].get("annotations", {})

    def test_on_a_claim_the_job_fetches_and_pods_only_read(self) -> None:
        """Pods of a hot model on a claim can't write to it."""
        mounts = {
            one["mountPath"]: one
            for one in pod(deployment(agent(**MODEL, **CLAIM, **HOT)))["containers"][0]["volumeMounts"]
        }
        assert mounts["/models"]["readOnly"] is True

    def test_the_pointer_says_which_artifact(self) -> None:
        """The ConfigMap holds the artifact that was verified, whatever the spec asks for by now, and can change."""
        verified = Artifact("s3://models/intent", "1", FIRST)
        rendered = shared_children(agent(**{**MODEL, "version": "2", "digest": SECOND}, **HOT), Routing(), verified)
        assert rendered.model_pointer is not None
        assert rendered.model_pointer["metadata"]["name"] == "helper-model"
        assert json.loads(rendered.model_pointer["data"]["model.json"]) == {
            "uri": "s3://models/intent",
            "version": "1",
            "digest": FIRST,
        }
        assert "immutable" not in rendered.model_pointer
        assert shared_children(agent(**MODEL, **HOT), Routing()).model_pointer is None

    def test_an_old_revision_has_the_model_as_it_is_now(self) -> None:
        """Going back to an earlier image keeps the model that runs; going back to before Hot keeps that one's model."""
        old = snapshot(agent("agent:1", **MODEL, **HOT))
        now = agent("agent:2", **{**MODEL, "uri": "s3://other", "version": "2", "digest": SECOND}, **HOT)
        back = at_revision(now, json.loads(json.dumps(old)))
        assert back.spec.template.image == "agent:1"
        assert back.spec.model is not None
        assert back.spec.model.artifact == Artifact("s3://other", "2", SECOND)
        before = at_revision(now, snapshot(agent(**MODEL)))
        assert before.spec.model is not None
        assert before.spec.model.artifact == Artifact("s3://models/intent", "1", FIRST)

    def test_a_channel_can_be_hot(self) -> None:
        """A pointer that moves changes what pods load, and no revision."""
        first, second = (resolved(agent(**CHANNEL, **HOT), *one) for one in (("1", FIRST), ("2", SECOND)))
        assert revision_name(first) == revision_name(second)
        assert second.spec.model is not None
        assert second.spec.model.artifact == Artifact("s3://models/intent", "2", SECOND)

    def test_the_operator_may_ask_pods_what_they_loaded(self) -> None:
        """The network policy lets the operator read the pods' figures."""
        policy = shared_children(agent(**MODEL, **HOT), Routing()).network_policy
        assert policy is not None
        assert any("namespaceSelector" in peer for peer in policy["spec"]["ingress"][0]["from"])
