"""Hot reload: the model follows MODEL_FILE, from a bucket that is a server of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import runpy
import shutil
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.classifier import CachedClassifier, IntentClassifier, KeywordClassifier, load_model
from supportfleet_runtime.agent.model import IntentModel
from supportfleet_runtime.agent.reload import ModelFollower, retry_pause
from supportfleet_runtime.models.artifact import Artifact, make_artifact, read_artifact
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.models.settings import MODEL_FILE_KEYS, model_variables, sync_settings
from supportfleet_runtime.models.sync import sync, sync_tested
from supportfleet_runtime.models.sync_command import self_test
from supportfleet_runtime.nlu.model_file import GRAPH, LABELS, SELF_TEST
from supportfleet_runtime.observability.metrics import Metrics

MODEL = Path(__file__).parents[2] / "examples" / "models" / "intent"
QUESTION = "Where is my order A-1001?"
S3 = runpy.run_path(str(Path(__file__).parent / "s3_api.py"))
Change = Callable[[dict[str, bytes]], None]


def nothing(_files: dict[str, bytes]) -> None:
    """The example model as it is."""


def renamed(files: dict[str, bytes]) -> None:
    """A model that was trained to call the one intent by the other's name."""
    for path in (LABELS, SELF_TEST):
        text = files[path].decode()
        text = text.replace('"order_status"', '"was_order"').replace('"refund"', '"order_status"')
        files[path] = text.replace('"was_order"', '"refund"').encode()


def with_wrong_labels(files: dict[str, bytes]) -> None:
    files[LABELS] = json.dumps(list(reversed(json.loads(files[LABELS])))).encode()


def with_corrupt_graph(files: dict[str, bytes]) -> None:
    files[GRAPH] = b"no graph"


def failing_its_self_test(files: dict[str, bytes]) -> None:
    test = json.loads(files[SELF_TEST])
    test["probes"][0]["label"], test["probes"][1]["label"] = test["probes"][1]["label"], test["probes"][0]["label"]
    files[SELF_TEST] = json.dumps(test).encode()


def without_self_test(files: dict[str, bytes]) -> None:
    del files[SELF_TEST]


@dataclass
class World:
    """A bucket, the file that names the wanted model, and the volume."""

    api: Any
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "wanted" / "model.json"

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def env(self) -> dict[str, str]:
        env: dict[str, str] = self.api.env | {"MODEL_FILE": str(self.file), "MODEL_DIR": str(self.volume)}
        return env

    @property
    def kept(self) -> list[str]:
        """The digests on the volume."""
        return sorted(f"sha256:{path.name}" for path in (self.volume / "versions").glob("*"))

    def publish(self, version: str, change: Change = nothing) -> Artifact:
        """Lay a variant of the example model into the bucket."""
        files = dict(read_artifact(MODEL).files)
        change(files)
        made = make_artifact(name="intent", version=version, created_at="2026-11-21T00:00:00Z", files=files)
        objects = {**made.files, "manifest.json": made.manifest.render()}
        self.api.objects.update({f"intent/{version}/{path}": data for path, data in objects.items()})
        return made

    def want(self, made: Artifact, digest: str | None = None) -> None:
        """Name the wanted model as a ConfigMap's volume does: through a link that is moved."""
        wanted = {"uri": "s3://models/intent", "version": made.manifest.version, "digest": digest or made.digest}
        self.write(json.dumps(wanted))

    def write(self, content: str) -> None:
        data = self.file.parent / f"..{len(list(self.file.parent.glob('..[0-9]*')))}"
        data.mkdir(parents=True)
        (data / "model.json").write_text(content)
        link = self.file.parent / "..new"
        link.symlink_to(data.name)
        link.replace(self.file.parent / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/model.json")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    api = S3["S3Api"]()
    async with api.serving():
        yield World(api, tmp_path)


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


@dataclass
class Following:
    """A follower at work."""

    model: IntentModel
    metrics: Metrics
    pauses: list[float]
    loaded: list[weakref.ref[Any]]

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def failure(self) -> dict[str, str] | None:
        """Which model is wanted and not in use, and why."""
        (family,) = [one for one in self.metrics.registry.collect() if one.name == "agent_model_reload_failed_info"]
        assert len(family.samples) <= 1
        return family.samples[0].labels if family.samples else None


@pytest.fixture
async def follow(world: World) -> AsyncIterator[Callable[..., Following]]:
    """Follow the world's file; pauses between tries take no time."""
    tasks: list[asyncio.Task[None]] = []

    def start() -> Following:
        pauses: list[float] = []
        loaded: list[weakref.ref[Any]] = []

        def load(path: Path) -> IntentClassifier:
            classifier = load_model(path)
            loaded.append(weakref.ref(classifier))
            return classifier

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0.01)

        metrics = Metrics()
        model = IntentModel(metrics)
        follower = ModelFollower(model, metrics, world.file, world.env, load=load, sleep=sleep, poll=0.01)
        tasks.append(asyncio.create_task(follower.run()))
        return Following(model, metrics, pauses, loaded)

    yield start
    for task in tasks:
        assert not task.done(), task
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestFollowing:
    async def test_the_first_model_is_fetched_and_loaded(self, world: World, follow: Any) -> None:
        """The wanted model is fetched, verified and used; a first load is no reload."""
        world.want(made := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        assert at_work.model.digest == made.digest
        assert at_work.value("agent_model_info", version="1", digest=made.digest) == 1
        assert at_work.value("agent_model_reload_total", result="success") == 0
        assert at_work.failure is None

    async def test_a_changed_file_swaps_the_model(self, world: World, follow: Any) -> None:
        """Another wanted model answers, from the same text on, without what was remembered of the one before."""
        world.want(world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        assert at_work.model.classifier.classify(QUESTION).candidate == "order_status"
        world.want(second := world.publish("2", renamed))
        await until(lambda: at_work.model.digest == second.digest)
        assert at_work.model.classifier.classify(QUESTION).candidate == "refund"
        assert at_work.value("agent_model_info", version="2", digest=second.digest) == 1
        assert at_work.value("agent_model_reload_total", result="success") == 1
        (family,) = [one for one in at_work.metrics.registry.collect() if one.name == "agent_model_info"]
        assert len(family.samples) == 1, "only the loaded one is told"

    async def test_the_volume_stays_bounded_and_old_models_go(self, world: World, follow: Any) -> None:
        """After many swaps the volume holds the model in use and the one before, and memory only the one in use."""
        at_work = follow()
        for version in ("1", "2", "3", "4"):
            world.want(made := world.publish(version))
            await until(lambda made=made: at_work.model.digest == made.digest)
            await until(lambda: len(world.kept) <= 2 and not list(world.volume.glob("incoming/*")))
        gc.collect()
        assert [one() is not None for one in at_work.loaded] == [False, False, False, True]
        assert made.digest in world.kept

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (with_corrupt_graph, "LoadFailed"),
            (with_wrong_labels, "SelfTestFailed"),
            (failing_its_self_test, "SelfTestFailed"),
        ],
    )
    async def test_a_bad_model_keeps_the_old_one(self, world: World, follow: Any, change: Change, reason: str) -> None:
        """What can't be loaded or fails its self-test is not used, told with its reason, and off the volume again."""
        world.want(good := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        world.want(bad := world.publish("2", change))
        await until(lambda: at_work.failure is not None)
        assert at_work.failure == {"version": "2", "digest": bad.digest, "reason": reason}
        assert (at_work.model.digest, at_work.model.problem) == (good.digest, None)
        assert at_work.model.classifier.classify(QUESTION).candidate == "order_status"
        assert at_work.value("agent_model_reload_total", result="failed") == 1
        await until(lambda: world.kept == [good.digest])
        world.want(third := world.publish("3"))
        await until(lambda: at_work.model.digest == third.digest)
        assert at_work.failure is None

    async def test_a_digest_that_is_not_the_buckets(self, world: World, follow: Any) -> None:
        """A model whose digest is another than the wanted one is never used."""
        world.want(good := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        world.want(world.publish("2"), digest="sha256:" + "a" * 64)
        await until(lambda: at_work.failure is not None)
        assert at_work.failure["reason"] == "DigestMismatch"
        assert at_work.model.digest == good.digest

    async def test_going_back_ends_the_failure(self, world: World, follow: Any) -> None:
        """Where the file names the model in use again, nothing is wrong any more."""
        world.want(good := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        world.want(world.publish("2", with_corrupt_graph))
        await until(lambda: at_work.failure is not None)
        world.want(good)
        await until(lambda: at_work.failure is None)
        assert at_work.value("agent_model_reload_total", result="success") == 0

    async def test_a_store_out_of_reach_is_tried_again(self, world: World, follow: Any) -> None:
        """While the bucket fails the old model serves; once it is back the new one is used, by itself."""
        world.want(good := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        second = world.publish("2")
        world.api.faults.append(fault := S3["Fault"]("status", status=503, code="SlowDown"))
        world.want(second)
        await until(lambda: at_work.failure is not None)
        assert at_work.failure["reason"] == "StorageUnreachable"
        assert at_work.model.digest == good.digest
        fault.times = 0
        await until(lambda: at_work.model.digest == second.digest)
        assert at_work.failure is None
        assert at_work.pauses
        assert at_work.value("agent_model_reload_total", result="unreachable") == len(at_work.pauses)

    async def test_a_change_cancels_a_reload(self, world: World, follow: Any) -> None:
        """A download that hangs does not hold up the model that is wanted by now."""
        first, second = world.publish("1"), world.publish("2")
        world.api.faults.append(S3["Fault"]("hang", path="1/model.onnx", keep=10))
        world.want(first)
        at_work = follow()
        await asyncio.wait_for(world.api.hanging.wait(), 30)
        world.want(second)
        await until(lambda: at_work.model.digest == second.digest)

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", '{"uri": "s3://models/intent"}', '{"uri": 1, "version": "1", "digest": "x"}']
    )
    async def test_a_file_that_is_none(self, world: World, follow: Any, content: str) -> None:
        """A malformed file is told, and what runs keeps running."""
        world.want(good := world.publish("1"))
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        world.write(content)
        await until(lambda: at_work.failure is not None)
        assert at_work.failure["reason"] == "InvalidSettings"
        assert at_work.model.digest == good.digest

    async def test_a_file_that_is_not_there_yet(self, world: World, follow: Any) -> None:
        """Before there is a file there is no model, and the problem names the variable."""
        at_work = follow()
        await until(lambda: "MODEL_FILE" in str(at_work.model.problem))
        world.want(world.publish("1"))
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)

    async def test_a_volume_that_cannot_be_written(self, world: World, follow: Any) -> None:
        """What a sync Job put on a claim that pods only read is used without writing."""
        first, second = world.publish("1"), world.publish("2")
        for made in (first, second):
            world.want(made)
            await sync(sync_settings(world.env))
        (world.volume / "lock").unlink()
        (world.volume / "lock").mkdir()
        world.api.requests.clear()
        world.want(first)
        at_work = follow()
        await asyncio.wait_for(at_work.model.loaded.wait(), 30)
        world.want(second)
        await until(lambda: at_work.model.digest == second.digest)
        assert at_work.failure is None
        assert not world.api.requests, "nothing is fetched"

    async def test_a_model_without_self_test(self, world: World, follow: Any) -> None:
        """Artifacts from before there were self-tests are loaded as ever."""
        world.want(made := world.publish("1", without_self_test))
        at_work = follow()
        await until(lambda: at_work.model.digest == made.digest)


class TestUnderLoad:
    async def test_no_message_fails_during_twenty_swaps(self, world: World, start_agent: Any) -> None:
        """Customers write all the time while the model is swapped twenty times: each message is answered by one."""
        models = [world.publish("a"), world.publish("b", renamed)]
        world.want(models[0])
        agent = await start_agent(**world.env)
        agent.parts.model_source._poll = 0.02
        answered: list[tuple[str, str]] = []
        done = asyncio.Event()

        async def customer(number: int) -> None:
            while not done.is_set():
                got = await agent.say(QUESTION, customer_id=f"cust-{number}")
                answered.append((got["intent"], got["source"]))

        customers = [asyncio.create_task(customer(number)) for number in range(4)]
        try:
            for swap in range(1, 21):
                wanted = models[swap % 2]
                world.want(wanted)
                before = len(answered)
                await until(lambda wanted=wanted: agent.parts.model.digest == wanted.digest)
                await until(lambda before=before: len(answered) > before + 4)
                async with agent.client.get("/readyz") as ready:
                    assert ready.status == 200
        finally:
            done.set()
            await asyncio.gather(*customers)
        assert await agent.metric('agent_model_reload_total{result="success"}') == 20
        assert {intent for intent, _ in answered} == {"order_status", "refund"}
        assert {source for _, source in answered} == {"rules"}
        assert len(answered) > 100
        assert len(world.kept) == 2

    async def test_ready_only_with_the_first_model(self, world: World, start_agent: Any) -> None:
        """Without its first model a pod is not ready and says why; a reload that fails later changes nothing."""
        world.want(world.publish("1", with_corrupt_graph))
        agent = await start_agent(until_ready=False, **world.env)
        agent.parts.model_source._poll = 0.02
        await until(lambda: "model.onnx" in str(agent.parts.model.problem))
        async with agent.client.get("/readyz") as got:
            assert (got.status, "model.onnx" in await got.text()) == (503, True)
        world.want(world.publish("2"))
        await asyncio.wait_for(agent.parts.progress.ready.wait(), 30)
        world.want(bad := world.publish("3", with_corrupt_graph))
        name = f'agent_model_reload_failed_info{{digest="{bad.digest}",reason="LoadFailed",version="3"}}'
        async with asyncio.timeout(30):
            while not await agent.metric(name):  # noqa: ASYNC110 - metrics set no event
                await asyncio.sleep(0.02)
        assert (await agent.client.get("/readyz")).status == 200
        assert (await agent.say(QUESTION))["intent"] == "order_status"


class TestCache:
    def test_it_remembers_and_forgets(self) -> None:
        """A text is classified once, until so many others were that it is forgotten."""
        asked: list[str] = []
        keywords = KeywordClassifier()

        class Counting:
            info = keywords.info

            def classify(self, text: str) -> Any:
                asked.append(text)
                return keywords.classify(text)

        cached = CachedClassifier(Counting(), size=2)
        texts = ["refund", "hello", "refund", "password", "hello", "\ud800"]
        assert [cached.classify(text) for text in texts] == [keywords.classify(text) for text in texts]
        assert asked == ["refund", "hello", "password", "hello", "\ud800"]


class TestModelFile:
    @given(st.binary(max_size=100) | st.dictionaries(st.text(), st.text()).map(lambda it: json.dumps(it).encode()))
    def test_any_content_is_read_or_refused(self, content: bytes) -> None:
        """Whatever a file holds, it is three variables or an error that names MODEL_FILE."""
        refusal = None
        try:
            assert model_variables(content).keys() == set(MODEL_FILE_KEYS.values())
        except ArtifactError as error:
            refusal = error
        assert refusal is None or (refusal.reason is Reason.INVALID_SETTINGS and "MODEL_FILE" in refusal.message)

    async def test_sync_model_reads_it_too(self, world: World) -> None:
        """The command of Jobs and init containers takes the file instead of the variables."""
        world.want(made := world.publish("1"))
        assert (await sync(sync_settings(world.env))).digest == made.digest
        shutil.rmtree(world.file.parent)
        with pytest.raises(ArtifactError, match="MODEL_FILE"):
            sync_settings(world.env)

    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_pauses_grow_and_end(self, tries: int, chance: float) -> None:
        """A pause is never longer than a minute, and never none."""
        assert 0.5 <= retry_pause(tries, chance) <= 60
        assert retry_pause(tries + 1, chance) >= retry_pause(tries, chance)


class TestBeforeAnyPod:
    """What the Job does that all pods wait for: it tries the model."""

    @pytest.mark.parametrize("stay", [True, False], ids=["kept", "only-tried"])
    @pytest.mark.parametrize("change", [nothing, without_self_test], ids=["as-published", "older"])
    async def test_a_good_model_passes(self, world: World, stay: bool, change: Change) -> None:  # noqa: FBT001 - pytest
        """It is kept and current where it is to stay, and leaves nothing else behind."""
        world.want(good := world.publish("1", change))
        done = await sync_tested(sync_settings(world.env), self_test, stay=stay)
        assert done.digest == good.digest
        assert world.kept == ([good.digest] if stay else [])
        assert (world.volume / "current").exists() is stay

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (with_corrupt_graph, Reason.LOAD_FAILED),
            (with_wrong_labels, Reason.SELF_TEST_FAILED),
            (failing_its_self_test, Reason.SELF_TEST_FAILED),
        ],
    )
    async def test_a_bad_one_changes_nothing(self, world: World, change: Change, reason: Reason) -> None:
        """Right bytes that are no good model are refused for good; what was current stays, and nothing else."""
        world.want(good := world.publish("1"))
        await sync_tested(sync_settings(world.env), self_test, stay=True)
        world.want(world.publish("2", change))
        with pytest.raises(ArtifactError) as refused:
            await sync_tested(sync_settings(world.env), self_test, stay=True)
        assert (refused.value.reason, refused.value.transient) == (reason, False)
        assert world.kept == [good.digest]
        assert read_artifact((world.volume / "current").resolve()).digest == good.digest
