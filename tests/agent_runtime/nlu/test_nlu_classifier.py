from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime import nlu
from supportfleet_runtime.models.artifact import make_artifact, read_artifact, write_artifact
from supportfleet_runtime.nlu.features import FeatureSettings

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture(scope="module")
def classifier(trained: Path) -> nlu.IntentClassifier:
    return nlu.load(trained)


def test_a_model_knows_what_it_is(classifier: nlu.IntentClassifier, trained: Path) -> None:
    """The loaded model tells name, version and the digest of its artifact, and its labels."""
    info = classifier.info
    assert (info.name, info.version) == ("intent", "1")
    assert info.digest == read_artifact(trained).digest
    assert info.labels == ("order_status", "other", "password_reset")
    assert info.out_of_scope == "other"
    assert 0 < info.threshold < 1


def test_it_tells_intents_apart(classifier: nlu.IntentClassifier) -> None:
    """Messages like those it was trained on are understood, with typos too."""
    assert classifier.classify("Where is my parcell??").intent == "order_status"
    assert classifier.classify("help, I forgot my pasword, reset it").intent == "password_reset"
    assert classifier.classify("tell me a joke about today").intent == "other"


class FixedGraph:
    """A graph that gives the same probabilities whatever it is asked."""

    def __init__(self, *scores: float) -> None:
        self._scores = scores

    def run(self, output_names: Any, input_feed: dict[str, Any]) -> list[Any]:
        return [np.tile(np.array(self._scores, dtype=np.float32), (len(input_feed["buckets"]), 1))]


@pytest.mark.parametrize(
    ("scores", "intent", "candidate"),
    [
        ((0.75, 0.25, 0.0), "refund", "refund"),
        ((0.5, 0.25, 0.25), "refund", "refund"),
        ((0.25, 0.375, 0.375), "none", "human"),
        ((0.25, 0.0, 0.75), "none", "none"),
    ],
)
def test_below_the_threshold_a_message_is_out_of_scope(scores: tuple[float, ...], intent: str, candidate: str) -> None:
    """The intent is the best label from the threshold on, and out of scope below; the candidate is kept."""
    info = nlu.ModelInfo("intent", "1", "sha256:", ("refund", "human", "none"), "none", 0.5)
    classifier = nlu.IntentClassifier(FixedGraph(*scores), FeatureSettings(), info)
    assert classifier.classify("anything") == nlu.Prediction(intent, max(scores), candidate)


@given(st.text(st.characters(codec=None), max_size=300))
def test_any_text_gets_an_answer(classifier: nlu.IntentClassifier, text: str) -> None:
    """Whatever a customer sends, there is an intent with a confidence."""
    prediction = classifier.classify(text)
    assert prediction.intent in classifier.info.labels
    assert 0 <= prediction.confidence <= 1.0001


def test_a_batch_gives_what_single_texts_give(classifier: nlu.IntentClassifier) -> None:
    """Padding a text to the length of another does not change its probabilities."""
    texts = ["hi", "where is my parcel and when does it arrive " * 20, "", "reset my password"]
    together = classifier.probabilities(texts)
    alone = np.vstack([classifier.probabilities([text]) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-4)
    assert classifier.classify_batch([]) == []


def test_threads_may_share_a_model(classifier: nlu.IntentClassifier) -> None:
    """Many threads at once get the answers that one gets."""
    texts = [f"where is my parcel {'please ' * (index % 7)}" for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classifier.classify, texts)) == [classifier.classify(text) for text in texts]


def changed(trained: Path, folder: Path, change: Change) -> Path:
    """A valid artifact whose content was changed."""
    artifact = read_artifact(trained)
    files = dict(artifact.files)
    change(files)
    write_artifact(
        folder, make_artifact(name="intent", version="1", created_at=artifact.manifest.created_at, files=files)
    )
    return folder


def setting(**values: Any) -> Change:
    def change(files: dict[str, bytes]) -> None:
        files["model.json"] = json.dumps({**json.loads(files["model.json"]), **values}).encode()

    return change


def content(path: str, data: bytes) -> Change:
    return lambda files: files.update({path: data})


def without_graph(files: dict[str, bytes]) -> None:
    del files["model.onnx"]


UNUSABLE: dict[str, Change] = {
    "no graph": without_graph,
    "a graph that is none": content("model.onnx", b"garbage"),
    "an empty graph": content("model.onnx", b""),
    "too few labels": content("labels.json", b'["order_status", "other"]'),
    "a label twice": content("labels.json", b'["a", "b", "b"]'),
    "labels that are none": content("labels.json", b'{"a": 1}'),
    "settings that are none": content("model.json", b"[]"),
    "a later schema": setting(schemaVersion=2),
    "another task": setting(task="translate"),
    "an unknown setting": setting(surprise=True),
    "another featuriser": setting(featurizer={"name": "words", "version": 1, "bits": 12, "maxCharacters": 2000}),
    "a later featuriser": setting(featurizer={"name": "hashed-ngrams", "version": 2, "bits": 12, "maxCharacters": 20}),
    "more buckets than the graph has": setting(
        featurizer={"name": "hashed-ngrams", "version": 1, "bits": 20, "maxCharacters": 2000}
    ),
    "a threshold beyond 1": setting(threshold=2),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_model_that_cannot_be_run_is_refused_when_loaded(trained: Path, tmp_path: Path, change: Change) -> None:
    """A model this runtime can't run fails to load, with one line, instead of failing at a customer's message."""
    with pytest.raises(nlu.ModelLoadError) as refused:
        nlu.load(changed(trained, tmp_path / "changed", change))
    assert "\n" not in str(refused.value)


def test_labels_are_those_of_the_training(trained: Path, tmp_path: Path) -> None:
    """A model whose labels were changed after its training fails its self-test, probed or not; so do wrong answers."""

    def relabel(files: dict[str, bytes]) -> None:
        files["labels.json"] = files["labels.json"].replace(b"order_status", b"order_state")
        test = json.loads(files["selftest.json"])
        files["selftest.json"] = json.dumps({**test, "probes": []}).encode()

    def less_sure(files: dict[str, bytes]) -> None:
        test = json.loads(files["selftest.json"])
        test["probes"][0]["confidence"] -= 0.05
        files["selftest.json"] = json.dumps(test).encode()

    for number, change in enumerate((relabel, less_sure, content("selftest.json", b"{}"))):
        with pytest.raises(nlu.ModelLoadError, match=r"selftest\.json") as refused:
            nlu.load(changed(trained, tmp_path / str(number), change))
        assert isinstance(refused.value, nlu.SelfTestError) == (number < 2)
    with pytest.raises(nlu.ModelLoadError):
        nlu.load(changed(trained, tmp_path / "none", content("selftest.json", b"\xff")))


def test_a_damaged_model_is_refused(trained: Path, tmp_path: Path) -> None:
    """Nothing is loaded of a folder whose files are not what its manifest says."""
    folder = tmp_path / "damaged"
    shutil.copytree(trained, folder)
    (folder / "labels.json").write_text('["a", "b", "c"]')
    with pytest.raises(nlu.ModelLoadError, match=r"labels\.json"):
        nlu.load(folder)
    with pytest.raises(nlu.ModelLoadError):
        nlu.load(tmp_path / "nowhere")


def test_a_graph_cannot_read_files(trained: Path, tmp_path: Path) -> None:
    """A graph whose weights are said to lie in another file is refused, not resolved."""
    import onnx  # noqa: PLC0415 - the only test that makes graphs

    def change(files: dict[str, bytes]) -> None:
        model = onnx.load_from_string(files["model.onnx"])
        tensor = next(one for one in model.graph.initializer if one.name == "idf")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/hostname")
        files["model.onnx"] = model.SerializeToString()

    with pytest.raises(nlu.ModelLoadError):
        nlu.load(changed(trained, tmp_path / "changed", change))
