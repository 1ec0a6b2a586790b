"""Train an intent classifier.

One linear support vector machine per label, over the tf-idf of hashed n-grams. Its margins are no probabilities, so a
calibration is fitted to what cross-validation says about messages that a model had not seen: one temperature for all
labels, and, where the data has examples of what is out of scope, a bias for that label. The threshold is the confidence
that all but a small share (``max_rejected``) of the rightly understood messages reach, at most one half; what stays
below is out of scope, also kinds of message of which the data has no example.

Everything is deterministic: the same data, settings and versions of the libraries give the same model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from supportfleet_runtime.nlu.dataset import Dataset
from supportfleet_runtime.nlu.errors import TrainingError
from supportfleet_runtime.nlu.evaluate import Figures, evaluate
from supportfleet_runtime.nlu.export import LinearModel
from supportfleet_runtime.nlu.features import FeatureSettings, featurize

FOLDS: Final = 5
MIN_MESSAGES: Final = FOLDS
"""Of each intent: every fold must hold one."""
REGULARIZATION: Final = 2.0
MAX_ITERATIONS: Final = 20_000
USUAL_SHARPNESS: Final = 5.0
"""Where the calibration is looked for, and what it is without any data."""
MAX_THRESHOLD: Final = 0.5

Matrix = Any
"""A scipy.sparse.csr_array [messages, buckets]; scipy publishes no types."""


@dataclass(frozen=True)
class TrainingSettings:
    """What can be chosen about a training."""

    features: FeatureSettings = field(default_factory=FeatureSettings)
    out_of_scope: str = "other"
    max_rejected: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Calibration:
    """From margins to probabilities: ``softmax(margins * sharpness + bias)``."""

    sharpness: float
    out_of_scope_bias: float

    def logits(self, margins: NDArray[np.float64], out_of_scope: int | None) -> NDArray[np.float64]:
        """The margins, calibrated."""
        logits = margins * self.sharpness
        if out_of_scope is not None:
            logits[:, out_of_scope] += self.out_of_scope_bias
        return logits


@dataclass(frozen=True)
class Trained:
    """A classifier, and what cross-validation says about it."""

    model: LinearModel
    labels: tuple[str, ...]
    threshold: float
    cross_validation: Figures


@dataclass(frozen=True)
class _Machine:
    """A fitted classifier: margins are ``tfidf(counts) @ weights + bias``."""

    idf: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def margins(self, counts: Matrix) -> NDArray[np.float64]:
        margins: NDArray[np.float64] = _tfidf(counts, self.idf) @ self.weights + self.bias
        return margins


def train(dataset: Dataset, settings: TrainingSettings) -> Trained:
    """Train a classifier.

    Raises:
        TrainingError: The data has too few labels, or too few messages of one.
    """
    check_trainable(dataset)
    labels = dataset.labels
    targets = np.searchsorted(np.array(labels), np.array(dataset.intents))
    counts = count_matrix(dataset.texts, settings.features)
    out_of_scope = labels.index(settings.out_of_scope) if settings.out_of_scope in labels else None

    margins = _cross_validate(counts, targets, settings.seed)
    calibration = calibrate(margins, targets, out_of_scope)
    scores = softmax(calibration.logits(margins, out_of_scope), axis=1)
    threshold = choose_threshold(scores, targets, out_of_scope, settings.max_rejected)
    best = scores.argmax(axis=1)
    guesses = [
        labels[index] if confidence >= threshold else settings.out_of_scope
        for index, confidence in zip(best, scores.max(axis=1), strict=True)
    ]
    figures = evaluate(dataset.intents, guesses, settings.out_of_scope)

    machine = _fit(counts, targets, settings.seed)
    bias = calibration.logits(machine.bias[np.newaxis, :], out_of_scope)[0]
    model = LinearModel(machine.weights * calibration.sharpness, bias, machine.idf)
    return Trained(model, labels, threshold, figures)


def check_trainable(dataset: Dataset) -> None:
    """Say what the data lacks.

    Raises:
        TrainingError: It has too few labels, or too few messages of one.
    """
    counts = dataset.counts
    if len(counts) < 2:  # noqa: PLR2004 - telling apart takes two
        raise TrainingError(
            f"{dataset.path}: every message has the intent {dataset.intents[0]!r}; at least two are needed"
        )
    if few := [f"{label} ({count})" for label, count in sorted(counts.items()) if count < MIN_MESSAGES]:
        raise TrainingError(f"{dataset.path}: fewer than {MIN_MESSAGES} messages of: {', '.join(few)}")


def count_matrix(texts: Sequence[str], settings: FeatureSettings) -> Matrix:
    """The features of many texts as one sparse matrix."""
    rows = [featurize(text, settings) for text in texts]
    ends = np.cumsum([0, *(len(row.buckets) for row in rows)])
    values = np.concatenate([row.weights for row in rows]).astype(np.float64)
    columns = np.concatenate([row.buckets for row in rows]).astype(np.int32)  # the solver takes no wider ones
    return scipy.sparse.csr_array((values, columns, ends.astype(np.int32)), shape=(len(rows), settings.buckets))


def calibrate(margins: NDArray[np.float64], targets: NDArray[np.int64], out_of_scope: int | None) -> Calibration:
    """Fit the calibration under which what was right is likeliest.

    A weak prior, worth one message, keeps it finite: data without a single mistake is no reason for certainty.
    """
    rows = np.arange(len(targets))
    usual = np.array([np.log(USUAL_SHARPNESS), 0.0])

    def calibration(parameters: NDArray[np.float64]) -> Calibration:
        # Rounded, so that the last digits of a sum, which differ between processors, don't reach the artifact.
        return Calibration(round(float(np.exp(parameters[0])), 3), round(float(parameters[1]), 3))

    def cost(parameters: NDArray[np.float64]) -> float:
        logits = Calibration(float(np.exp(parameters[0])), float(parameters[1])).logits(margins, out_of_scope)
        likelihood = log_softmax(logits, axis=1)[rows, targets].sum()
        return float(((parameters - usual) ** 2).sum() - likelihood) / len(targets)

    return calibration(minimize(cost, usual, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-8}).x)


def choose_threshold(
    scores: NDArray[np.float64], targets: NDArray[np.int64], out_of_scope: int | None, max_rejected: float
) -> float:
    """The confidence that all but ``max_rejected`` of the rightly understood messages reach, at most one half.

    On data that is easy to tell apart nearly all reach nearly 1, which says little about what else customers write; and
    what is more likely right than wrong is not to be turned away.
    """
    best = scores.argmax(axis=1)
    right = best == targets
    if out_of_scope is not None:
        right &= targets != out_of_scope
    if not right.any():
        return 0.0
    reached = np.quantile(scores.max(axis=1)[right], max_rejected, method="lower")
    return float(min(np.floor(reached * 1000) / 1000, MAX_THRESHOLD))


def _cross_validate(counts: Matrix, targets: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The margins of each message under a machine that was fitted without it."""
    margins = np.zeros((len(targets), int(targets.max()) + 1))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for seen, unseen in folds.split(np.zeros(len(targets)), targets):
        margins[unseen] = _fit(counts[seen], targets[seen], seed).margins(counts[unseen])
    return margins


def _fit(counts: Matrix, targets: NDArray[np.int64], seed: int) -> _Machine:
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.round(np.log((1 + counts.shape[0]) / (1 + frequency)) + 1, 6)
    idf[frequency == 0] = 0  # an unseen n-gram says nothing, and must not make the rest of its text count for less
    machine = LinearSVC(C=REGULARIZATION, dual=True, max_iter=MAX_ITERATIONS, random_state=seed)
    machine.fit(_tfidf(counts, idf), targets)
    weights, bias = machine.coef_.T, machine.intercept_
    if weights.shape[1] == 1:  # two labels share one machine, whose sign tells them apart
        weights, bias = np.hstack([-weights, weights]), np.array([-bias[0], bias[0]])
    return _Machine(idf, weights, bias)


def _tfidf(counts: Matrix, idf: NDArray[np.float64]) -> Matrix:
    """Weigh buckets by their rarity, and scale each text, all of which have features, to length 1."""
    weights = counts.data * idf[counts.indices]
    hits = np.diff(counts.indptr)
    lengths = np.sqrt(np.add.reduceat(weights**2, counts.indptr[:-1]))
    scaled = weights / np.repeat(lengths, hits)
    return scipy.sparse.csr_array((scaled, counts.indices, counts.indptr), shape=counts.shape)
