"""Intent models on public data sets, which are not part of the project.

``SUPPORTFLEET_DATASETS`` names a folder that holds ``banking77/`` (train.csv, test.csv) and ``clinc150/`` (train.csv,
validation.csv, with ``oos`` for what is out of scope), each with the columns text,intent. Training on all of them takes
minutes, so a part of the intents has to do; ``benchmarks/nlu.py`` gives the whole figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from supportfleet_runtime import nlu
from supportfleet_runtime.nlu.dataset import read_dataset

Train = Callable[..., Path]
INTENTS = 20


@pytest.fixture
def datasets() -> Path:
    folder = os.environ.get("SUPPORTFLEET_DATASETS")
    if not folder:
        pytest.skip("banking77 and clinc150 are not judged: set SUPPORTFLEET_DATASETS to a folder that holds them")
    return Path(folder)


def part_of(source: Path, target: Path, labels: set[str]) -> Path:
    dataset = read_dataset(source)
    rows = [(text, label) for text, label in zip(dataset.texts, dataset.intents, strict=True) if label in labels]
    target.write_text("text,intent\n" + "".join('"{}","{}"\n'.format(a.replace('"', '""'), b) for a, b in rows))
    return target


@pytest.mark.parametrize(
    ("name", "judged_on", "out_of_scope", "accuracy"),
    [("banking77", "test.csv", "other", 0.9), ("clinc150", "validation.csv", "oos", 0.9)],
)
def test_other_data_is_learned_as_well(
    datasets: Path, tmp_path: Path, train: Train, name: str, judged_on: str, out_of_scope: str, accuracy: float
) -> None:
    """The same command learns data it was not made for; what is out of scope is recognised where there are examples."""
    labels = set(read_dataset(datasets / name / "train.csv").labels[:INTENTS]) | {out_of_scope}
    training = part_of(datasets / name / "train.csv", tmp_path / "train.csv", labels)
    held_out = read_dataset(part_of(datasets / name / judged_on, tmp_path / "held_out.csv", labels))
    classifier = nlu.load(train(training, "--bits", "15", "--out-of-scope", out_of_scope))
    guesses = [one.intent for one in classifier.classify_batch(held_out.texts)]
    pairs = list(zip(guesses, held_out.intents, strict=True))
    inside = [guess == truth for guess, truth in pairs if truth != out_of_scope]
    outside = [guess == truth for guess, truth in pairs if truth == out_of_scope]
    assert sum(inside) / len(inside) > accuracy
    assert not outside or sum(outside) / len(outside) > 0.7
