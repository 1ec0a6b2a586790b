"""Run an intent model: load it from a verified folder, classify texts.

The graph takes a batch of featurised texts, padded with weight 0, and gives a probability for each label:

===========  ================  ==============================================================
``buckets``  int64 [n, k]      the hash buckets of each text
``weights``  float32 [n, k]    their damped counts; 0 where a shorter text is padded
``scores``   float32 [n, c]    calibrated probabilities, in the order of ``labels.json``
===========  ================  ==============================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from supportfleet_runtime.models.artifact import Artifact, read_artifact
from supportfleet_runtime.models.errors import ArtifactError
from supportfleet_runtime.nlu.errors import ModelLoadError
from supportfleet_runtime.nlu.features import Features, FeatureSettings, featurize
from supportfleet_runtime.nlu.model_file import (
    GRAPH,
    LABELS,
    SELF_TEST,
    SETTINGS,
    ModelSettings,
    parse_labels,
    parse_settings,
)
from supportfleet_runtime.nlu.self_test import parse_self_test, run_self_test

PROBE = "where is my order 1001"
"""What a freshly loaded model is asked first, so that a broken one fails here and not at a customer's message."""


@dataclass(frozen=True)
class ModelInfo:
    """Which model this is."""

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    out_of_scope: str
    threshold: float


@dataclass(frozen=True)
class Prediction:
    """What a text asks for.

    ``candidate`` is the best label and ``confidence`` its calibrated probability; ``intent`` is the candidate where the
    confidence reaches the model's threshold, else the out-of-scope label.
    """

    intent: str
    confidence: float
    candidate: str


class Graph(Protocol):
    """What is used of an ONNX Runtime session."""

    def run(self, output_names: Sequence[str] | None, input_feed: dict[str, Any]) -> Sequence[Any]:
        """Compute the named outputs."""
        ...


class IntentClassifier:
    """A loaded model. It holds no state, so any number of threads may share it."""

    def __init__(self, graph: Graph, settings: FeatureSettings, info: ModelInfo) -> None:
        self.info = info
        self._graph = graph
        self._settings = settings

    def classify(self, text: str) -> Prediction:
        """Tell what one text asks for. Any string gets an answer."""
        return self.classify_batch([text])[0]

    def classify_batch(self, texts: Sequence[str]) -> list[Prediction]:
        """Tell what each of some texts asks for, in one run of the graph."""
        return [self._predict(row) for row in self.probabilities(texts)]

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The probability of each label, one row for each text."""
        if not texts:
            return np.zeros((0, len(self.info.labels)), dtype=np.float32)
        buckets, weights = _batch([featurize(text, self._settings) for text in texts])
        scores: NDArray[np.float32] = self._graph.run(["scores"], {"buckets": buckets, "weights": weights})[0]
        return scores

    def _predict(self, row: NDArray[np.float32]) -> Prediction:
        best = int(row.argmax())
        candidate, confidence = self.info.labels[best], float(row[best])
        intent = candidate if confidence >= self.info.threshold else self.info.out_of_scope
        return Prediction(intent, confidence, candidate)


def load(path: Path) -> IntentClassifier:
    """Load the model in a folder, after every file has been verified against its manifest. It blocks: use a thread.

    Raises:
        ModelLoadError: The folder is no valid artifact, not an intent model, or one that this runtime can't run.
    """
    try:
        return classifier_of(read_artifact(path.resolve()))
    except ArtifactError as error:
        raise ModelLoadError(f"{path}: {error.message}") from error
    except ModelLoadError as error:
        raise type(error)(f"{path}: {error}") from error


def classifier_of(artifact: Artifact) -> IntentClassifier:
    """Make a classifier of an artifact that is in memory.

    Raises:
        ModelLoadError: It is not an intent model, or one that this runtime can't run.
        SelfTestError: It does not answer as it did when it was trained.
    """
    if missing := {GRAPH, LABELS, SETTINGS} - artifact.files.keys():
        raise ModelLoadError(f"{', '.join(sorted(missing))} not in the manifest: this is no intent model")
    settings, labels = parse_settings(artifact.files[SETTINGS]), parse_labels(artifact.files[LABELS])
    classifier = IntentClassifier(
        _session(artifact.files[GRAPH]), settings.featurizer.settings(), _info(artifact, settings, labels)
    )
    _check_shape(classifier)
    if SELF_TEST in artifact.files:
        run_self_test(parse_self_test(artifact.files[SELF_TEST]), labels, classifier.probabilities)
    return classifier


def _info(artifact: Artifact, settings: ModelSettings, labels: tuple[str, ...]) -> ModelInfo:
    manifest = artifact.manifest
    return ModelInfo(
        manifest.name, manifest.version, artifact.digest, labels, settings.out_of_scope, settings.threshold
    )


def _session(graph: bytes) -> Graph:
    """Open a graph from memory, where it can't refer to files outside of itself."""
    import onnxruntime  # noqa: PLC0415 - 40 MB that only an agent with a model pays for

    options = onnxruntime.SessionOptions()
    # One text is too little work to share; pods are scaled instead, and a waiting thread must not spin.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        session: Graph = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        raise ModelLoadError(f"{GRAPH}: ONNX Runtime refuses it ({type(error).__name__})") from error
    return session


def _check_shape(classifier: IntentClassifier) -> None:
    """Check that inputs and outputs are what this runtime expects."""
    try:
        row = classifier.probabilities([PROBE])
    except Exception as error:  # the same
        raise ModelLoadError(f"{GRAPH}: it does not run on this featuriser ({type(error).__name__})") from error
    labels = len(classifier.info.labels)
    if row.shape != (1, labels) or not np.isfinite(row).all() or not np.isclose(row.sum(), 1, atol=1e-3):
        raise ModelLoadError(f"{GRAPH}: its output is not one probability for each of the {labels} labels")


def _batch(rows: Sequence[Features]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    width = max(len(row.buckets) for row in rows)
    buckets = np.zeros((len(rows), width), dtype=np.int64)
    weights = np.zeros((len(rows), width), dtype=np.float32)
    for index, row in enumerate(rows):
        buckets[index, : len(row.buckets)] = row.buckets
        weights[index, : len(row.weights)] = row.weights
    return buckets, weights
