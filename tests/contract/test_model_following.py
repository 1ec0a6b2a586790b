"""Models that are followed: what the operator tells pods of channels and hot models is what the runtime reads."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.api import Artifact, SupportAgent, parse
from supportfleet_operator.api.model import URI, VERSION
from supportfleet_operator.resources import Routing, channel_job, revision_children, shared_children
from supportfleet_runtime.models.settings import channel_settings, model_variables, sync_settings

DIGEST: Final = f"sha256:{'a' * 64}"
STORE: Final[dict[str, Any]] = {
    "endpoint": "http://s3:9000",
    "region": "eu-central-1",
    "credentialsSecretRef": {"name": "s3"},
}
FOLDERS = st.from_regex(VERSION, fullmatch=True).filter(lambda text: len(text) <= 63)


def agent(**model: Any) -> SupportAgent:
    return parse(
        {
            "apiVersion": "supportfleet.dev/v1alpha1",
            "kind": "SupportAgent",
            "metadata": {"name": "helper", "namespace": "shop", "uid": "u-1"},
            "spec": {"template": {"image": "agent:1"}, "model": model},
        }
    )


def variables(container: dict[str, Any]) -> dict[str, str]:
    """A container's variables, with something for what comes from Secrets and the pod."""
    return {one["name"]: one.get("value", "from-elsewhere") for one in container["env"]}


@given(uri=st.from_regex(URI, fullmatch=True), version=FOLDERS)
def test_pods_understand_the_pointer_to_a_hot_model(uri: str, version: str) -> None:
    """The ConfigMap's file stands for exactly the three variables that any other pod gets."""
    rendered = shared_children(agent(uri=uri, channel="x", reload="Hot"), Routing(), Artifact(uri, version, DIGEST))
    assert rendered.model_pointer is not None
    content = rendered.model_pointer["data"]["model.json"].encode()
    assert model_variables(content) == {"MODEL_BUCKET": uri, "MODEL_VERSION": version, "MODEL_DIGEST": DIGEST}


@given(uri=st.from_regex(URI, fullmatch=True), channel=FOLDERS)
def test_every_channel_that_admission_lets_through_can_be_asked(uri: str, channel: str) -> None:
    """What the API server accepts as a channel never fails in the Job for how it is written."""
    store = STORE if uri.startswith("s3://") else {}
    job = channel_job(agent(uri=uri, channel=channel, **store), 1)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    location, name, s3 = channel_settings(variables(container))
    assert (location.bucket, name) == (uri.split("/")[2] or None, channel)
    assert s3.endpoint == store.get("endpoint")


@pytest.mark.parametrize("cache", ["EmptyDir", "PersistentVolumeClaim"])
def test_a_pod_of_a_hot_model_can_fetch_it(cache: str) -> None:
    """The pod has the bucket's address and credentials, which belong to the file that it is told to follow."""
    model = agent(uri="s3://models", version="1", digest=DIGEST, reload="Hot", cache={"type": cache}, **STORE)
    children = revision_children(model, "r0123456", replicas=1, autoscaled=False)
    (container,) = children.deployment["spec"]["template"]["spec"]["containers"]
    environ = variables(container)
    assert environ["MODEL_FILE"].startswith(f"{container['volumeMounts'][-1]['mountPath']}/")
    told = {"MODEL_BUCKET": "s3://models", "MODEL_VERSION": "1", "MODEL_DIGEST": DIGEST}
    settings = sync_settings({name: value for name, value in environ.items() if name != "MODEL_FILE"} | told)
    assert settings.source.bucket == "models"
    assert settings.s3.endpoint == "http://s3:9000"
