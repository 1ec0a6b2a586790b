"""The example data, and the model that was trained from it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from supportfleet_runtime import nlu
from supportfleet_runtime.models.artifact import read_artifact, verify_artifact
from supportfleet_runtime.nlu.dataset import Dataset, read_dataset
from supportfleet_runtime.nlu.train_command import add_arguments, build

EXAMPLES = Path(__file__).parents[3] / "examples"
TRAINING, HELD_OUT = EXAMPLES / "data" / "support_intents.csv", EXAMPLES / "data" / "support_intents_test.csv"
MODEL = EXAMPLES / "models" / "intent"


@pytest.fixture(scope="module")
def model() -> nlu.IntentClassifier:
    return nlu.load(MODEL)


def normalized(dataset: Dataset) -> set[str]:
    return {
        " ".join("".join(letter for letter in text.casefold() if letter.isalnum() or letter == " ").split())
        for text in dataset.texts
    }


def test_the_held_out_messages_are_held_out() -> None:
    """No message that the model is judged by is among those it was trained on, and no text has two intents."""
    training, held_out = read_dataset(TRAINING), read_dataset(HELD_OUT)
    assert not normalized(training) & normalized(held_out)
    assert training.conflicts() == held_out.conflicts() == []
    assert training.labels == held_out.labels


def test_the_model_was_trained_on_this_data(model: nlu.IntentClassifier) -> None:
    """Whoever changes the data is told to train the example model anew."""
    verify_artifact(MODEL)
    kept = json.loads((MODEL / "model.json").read_text())
    assert kept["training"]["data"] == hashlib.sha256(TRAINING.read_bytes()).hexdigest()
    assert model.info.labels == read_dataset(TRAINING).labels


def test_the_model_understands_what_it_is_said_to(model: nlu.IntentClassifier) -> None:
    """The figures that the artifact carries are those it really has on the held-out messages."""
    held_out = read_dataset(HELD_OUT)
    right = sum(model.classify(text).intent == was for text, was in zip(held_out.texts, held_out.intents, strict=True))
    accuracy = right / len(held_out.texts)
    assert accuracy == pytest.approx(
        json.loads((MODEL / "model.json").read_text())["metrics"]["heldOut"]["accuracy"], abs=0.011
    )
    assert accuracy > 0.85


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("Where is my order A-1001?", "order_status"),
        ("I forgot my password", "password_reset"),
        ("I moved, please change my delivery address", "address_change"),
        ("I want my money back for A-1003", "refund"),
        ("Send me my complete order history", "detailed_history"),
        ("Let me talk to a human", "human"),
        ("Hello!", "greeting"),
        ("What is the capital of France?", "other"),
        ("Write me a haiku about spring", "other"),
        ("", "other"),
    ],
)
def test_the_plainest_messages_are_understood(model: nlu.IntentClassifier, text: str, intent: str) -> None:
    """What a first user types to try it out gets the intent that anybody would give it."""
    assert model.classify(text).intent == intent


def test_training_anew_gives_the_model_that_is_committed(model: nlu.IntentClassifier) -> None:
    """The documented command on this data makes this very artifact, so its digest can be written into the examples."""
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(["--data", str(TRAINING), "--output", "unused"])
    committed = read_artifact(MODEL)
    anew = build(read_dataset(TRAINING), read_dataset(HELD_OUT), arguments, committed.manifest.created_at)
    assert anew.artifact.digest == committed.digest
