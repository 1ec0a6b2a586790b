"""Models that running pods take, on a real cluster: no pod restarts, no message fails, and a bad model changes nothing.

The second version names two intents the other way round, so an answer tells which model it came from. A pod sees a
changed ConfigMap at the kubelet's next round, which is why there is patience here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

meanwhile = runpy.run_path(str(Path(__file__).parent.parent / "meanwhile.py"))["meanwhile"]
LOG = logging.getLogger("figures")
MODEL = Path(__file__).parent.parent.parent / "examples" / "models" / "intent"
EXAMPLE, NAME = "01-customer-support-agent.yaml", "customer-support-agent"
TEXT, FIRST, SECOND = "I want my money back for order A-1001", "refund", "password_reset"
REPLICAS = 2
POLL_SECONDS = 10
KUBELET = 150
"""Seconds until pods see a changed ConfigMap, at the most."""

pytestmark = pytest.mark.timeout(900)


def variant(folder: Path, version: str, *swapped: str) -> Path:
    """The example's model as another version, in some files of which two intents have each other's names."""
    shutil.copytree(MODEL, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {f'"{FIRST}"': f'"{SECOND}"', f'"{SECOND}"': f'"{FIRST}"'}
    for entry in manifest["files"]:
        if entry["path"] in swapped:
            file = folder / entry["path"]
            file.write_text(re.sub("|".join(names), lambda found: names[found.group()], file.read_text()))
            entry |= {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return folder


@dataclass(frozen=True)
class Bucket:
    """Where the test's versions are published."""

    uri: str
    environment: dict[str, str]

    def tell(self, *arguments: str) -> str:
        """Run supportfleet-runtime against it."""
        command = [sys.executable, "-m", "supportfleet_runtime", *arguments]
        env = {**os.environ, **self.environment}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def publish(self, folder: Path) -> str:
        return self.tell("publish-model", str(folder), self.uri)


@pytest.fixture
def bucket(operator: Any, s3_environment: dict[str, str], namespace: str) -> Bucket:
    """A prefix of the test's own."""
    return Bucket(f"s3://models/{namespace}", s3_environment)


@pytest.fixture
def digests(bucket: Bucket, tmp_path: Path) -> dict[str, str]:
    """Three versions: the example, one that swaps two intents, and one that no longer means what its self-test says."""
    both = ("labels.json", "selftest.json")
    swapped = {"1": (), "2": both, "3": both[:1]}
    return {name: bucket.publish(variant(tmp_path / name, name, *files)) for name, files in swapped.items()}


@dataclass
class Shop:
    """An agent whose pods take another model while they run."""

    cluster: Any
    namespace: str
    talk: Any
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    """When a message was sent, the HTTP status, and the intent that was found."""

    def apply(self, agent: dict[str, Any], **model: Any) -> None:
        spec = agent["spec"]
        spec.pop("autoscaling")
        spec["replicas"] = REPLICAS
        spec["template"]["resources"] = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        kept = {key: spec["model"][key] for key in ("endpoint", "credentialsSecretRef")}
        spec["model"] = {**kept, "reload": "Hot", **model}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(agent))

    def take(self, **model: str) -> float:
        """Ask for another model."""
        patch = json.dumps({"spec": {"model": model}})
        self.cluster.kubectl("-n", self.namespace, "patch", "supportagent", NAME, "--type=merge", "-p", patch)
        return time.monotonic()

    @property
    def status(self) -> dict[str, Any]:
        agent = self.cluster.get("-n", self.namespace, "supportagent", NAME)
        status = dict(agent.get("status") or {})
        return status if status.get("observedGeneration") == agent["metadata"]["generation"] else {}

    def condition(self, kind: str) -> dict[str, Any]:
        return next((one for one in self.status.get("conditions", []) if one["type"] == kind), {})

    def runs(self, version: str) -> bool:
        """Whether the status says that every pod runs it."""
        model = self.status.get("model") or {}
        synced = self.condition("ModelSynced")
        return (model.get("version"), model.get("loadedPods"), synced.get("status")) == (version, REPLICAS, "True")

    def refuses(self, *words: str) -> bool:
        """Whether the status says that the model was not taken, in these words."""
        found = self.condition("ModelSynced")
        said = f"{found.get('reason')} {found.get('message')}"
        return found.get("status") == "False" and all(word in said for word in words)

    @property
    def pods(self) -> dict[str, tuple[str, int, bool]]:
        """Name, uid, restarts and readiness of the agent's pods."""
        found = self.cluster.get("-n", self.namespace, "pods", "-l", "app.kubernetes.io/component=agent")["items"]
        new = {"restartCount": 0, "ready": False}  # as its node has not looked at it yet
        states = [(pod["metadata"], pod["status"].get("containerStatuses", [new])[0]) for pod in found]
        return {meta["name"]: (meta["uid"], state["restartCount"], state["ready"]) for meta, state in states}

    def loaded(self) -> Counter[str]:
        """Which digests the pods say that they use."""
        texts = [self.talk("/metrics", pod=name).raw.decode() for name in self.pods]
        return Counter(one for text in texts for one in re.findall(r'agent_model_info{digest="([^"]+)".*} 1', text))

    def ask(self) -> None:
        sent = time.monotonic()
        body = {"customer_id": f"customer-{time.time_ns()}", "text": TEXT}
        try:
            answer = self.talk("/v1/messages", body, service=NAME)
            self.answers.append((sent, answer.status, answer.body["intent"] if answer.status == 200 else ""))
        except OSError as error:
            self.answers.append((sent, 0, repr(error)))

    def since(self, moment: float) -> Counter[str]:
        """What messages that were sent after a moment were taken for."""
        return Counter(intent for sent, _, intent in self.answers if sent >= moment)

    @contextmanager
    def steady(self, pause: float = 0.2) -> Iterator[None]:
        """Customers who go on asking, in the background."""

        def send(stop: threading.Event) -> None:
            while not stop.wait(pause):
                self.ask()

        with meanwhile(send):
            yield


@pytest.fixture
def shop(operator: Any, namespace: str, talk: Any) -> Shop:
    return Shop(operator, namespace, talk)


def test_pods_take_a_model_and_refuse_a_bad_one(
    shop: Shop,
    bucket: Bucket,
    digests: dict[str, str],
    example: Callable[[str], dict[str, Any]],
    until: Any,
    reached: Callable[[str], None],
) -> None:
    """The same pods answer by a new model, keep it when the next is bad, and no message fails.

    The condition names a digest that is not the published one, and a model that fails its self-test; going back heals.
    """
    shop.apply(example(EXAMPLE), uri=bucket.uri, version="1", digest=digests["1"])
    until(lambda: shop.runs("1"), seconds=180, message="the first model")
    before = shop.pods
    reached(NAME)
    with shop.steady():
        asked = shop.take(version="2", digest=digests["2"])
        until(lambda: shop.runs("2"), seconds=KUBELET, message="the second model")
        second = time.monotonic()
        assert shop.loaded() == {digests["2"]: REPLICAS}

        shop.take(version="3", digest=digests["2"])
        until(
            lambda: shop.refuses("DigestMismatch", "spec.model.digest"), seconds=90, message="a wrong digest is named"
        )

        third = shop.take(version="3", digest=digests["3"])
        until(lambda: shop.refuses("SelfTestFailed"), seconds=KUBELET, message="a bad model is named")
        refused = time.monotonic()
        time.sleep(5)
        assert shop.status["model"]["loadedPods"] == REPLICAS
        assert shop.loaded() == {digests["2"]: REPLICAS}

        back = shop.take(version="2", digest=digests["2"])
        until(lambda: shop.runs("2"), seconds=KUBELET, message="back on the second model")
        healed = time.monotonic()
        time.sleep(2)
    took = (
        f"taken {second - asked:.1f} s, refused {refused - third:.1f} s, healed {healed - back:.1f} s after the patch"
    )
    LOG.info("%s; %s messages", took, len(shop.answers))
    assert shop.pods == before
    assert {ready for _, _, ready in before.values()} == {True}
    assert [one for one in shop.answers if one[1] != 200] == []
    assert shop.since(0).keys() == {FIRST, SECOND}
    assert shop.since(second).keys() == {SECOND}


def test_a_new_pod_while_a_bad_model_is_asked_for(
    shop: Shop, bucket: Bucket, digests: dict[str, str], example: Callable[[str], dict[str, Any]], until: Any
) -> None:
    """A pod that starts meanwhile gets the model that the others have: nobody was told of the bad one."""
    shop.apply(example(EXAMPLE), uri=bucket.uri, version="1", digest=digests["1"])
    until(lambda: shop.runs("1"), seconds=180, message="the first model")
    shop.take(version="3", digest=digests["3"])
    until(lambda: shop.refuses("SelfTestFailed"), seconds=KUBELET, message="a bad model is named")
    gone, *_ = shop.pods
    shop.cluster.kubectl("-n", shop.namespace, "delete", "pod", gone)
    ready = lambda: gone not in shop.pods and [one[2] for one in shop.pods.values()] == [True] * REPLICAS  # noqa: E731
    until(ready, seconds=90, message="another pod is ready in its place")
    assert shop.loaded() == {digests["1"]: REPLICAS}


def test_pods_follow_a_channel(
    shop: Shop,
    bucket: Bucket,
    digests: dict[str, str],
    example: Callable[[str], dict[str, Any]],
    until: Any,
    reached: Callable[[str], None],
) -> None:
    """When the channel moves, the same pods answer by the version that it points to, and no message fails."""
    bucket.tell("channel", "set", bucket.uri, "stable", "1")
    shop.apply(example(EXAMPLE), uri=bucket.uri, channel="stable", channelPollSeconds=POLL_SECONDS)
    until(lambda: shop.runs("1"), seconds=180, message="the first model")
    before = shop.pods
    reached(NAME)
    with shop.steady():
        moved = time.monotonic()
        bucket.tell("channel", "set", bucket.uri, "stable", "2", "--digest", digests["2"])
        until(lambda: shop.runs("2"), seconds=KUBELET + POLL_SECONDS, message="the second model")
        taken = time.monotonic()
        time.sleep(2)
    LOG.info("taken %.1f s after the channel moved; %s messages", taken - moved, len(shop.answers))
    assert shop.pods == before
    assert shop.loaded() == {digests["2"]: REPLICAS}
    assert [one for one in shop.answers if one[1] != 200] == []
    assert shop.since(taken).keys() == {SECOND}
