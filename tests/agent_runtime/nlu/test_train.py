from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supportfleet_runtime import nlu
from supportfleet_runtime.__main__ import main
from supportfleet_runtime.models.artifact import read_artifact, verify_artifact
from supportfleet_runtime.nlu.dataset import read_dataset
from supportfleet_runtime.nlu.evaluate import evaluate
from supportfleet_runtime.nlu.export import quantize
from supportfleet_runtime.nlu.train import Calibration, calibrate, choose_threshold

Train = Callable[..., Path]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text,intent\n" + "".join(f'"{text}",{intent}\n' for text, intent in rows))
    return path


def test_the_same_data_gives_the_same_digest(train: Train, data: Path, trained: Path) -> None:
    """Data, seed and settings decide every byte; another seed or version is another model."""
    digest = read_artifact(trained).digest
    assert read_artifact(train(data)).digest == digest
    assert read_artifact(train(data, "--version", "2")).digest != digest
    assert read_artifact(train(data, "--seed", "1")).digest != digest


def test_the_time_comes_from_the_environment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SOURCE_DATE_EPOCH fixes when the artifact was made; the digest is printed alone on standard output."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert main(["train", "--data", str(data), "--output", str(tmp_path / "model"), "--bits", "10"]) == 0
    manifest, digest = verify_artifact(tmp_path / "model")
    assert manifest.created_at == "2023-11-14T22:13:20Z"
    assert capsys.readouterr().out.strip() == digest
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert main(["train", "--data", str(data), "--output", str(tmp_path / "model")]) == 2


def test_held_out_figures_are_those_of_the_finished_model(
    train: Train, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What train says about --eval is what the artifact, loaded from its folder, really answers."""
    held_out = write(
        tmp_path / "held_out.csv",
        [("where's the parcel", "order_status"), ("log in fails", "password_reset"), ("my parcel is blue", "other")],
    )
    folder = train(data, "--eval", str(held_out))
    told = capsys.readouterr().err
    classifier, dataset = nlu.load(folder), read_dataset(held_out)
    right = sum(
        classifier.classify(text).intent == intent for text, intent in zip(dataset.texts, dataset.intents, strict=True)
    )
    assert f"held_out.csv: 3 messages, right {100 * right / 3:.1f} %" in told
    kept = json.loads((folder / "model.json").read_text())["metrics"]["heldOut"]
    assert kept["accuracy"] == pytest.approx(right / 3, abs=1e-4)


def test_two_labels_are_enough(train: Train, tmp_path: Path) -> None:
    """A model of two labels works like any other, also without examples of what is out of scope."""
    rows = [(f"{word} number {index}", word) for word in ("apples", "pears") for index in range(6)]
    classifier = nlu.load(train(write(tmp_path / "two.csv", rows)))
    assert classifier.classify("apples!").intent == "apples"
    assert classifier.classify("pears?").intent == "pears"
    assert classifier.info.out_of_scope == "other"


BAD = {
    "empty file": (b"", "line 1: no column text and no column intent"),
    "no messages": (b"text,intent\n", "no messages"),
    "other columns": (b"message,label\na,b\n", "line 1: no column text"),
    "a comma unquoted": (b"text,intent\nhello, you,greeting\n", "line 2: 3 values where the header has 2"),
    "a value missing": (b"text,intent\nok,greeting\nhello\n", "line 3: 1 values"),
    "no text": (b"text,intent\n\n  ,greeting\n", "line 3: the text is empty"),
    "no intent": (b'text,intent\n"two\nlines",a\nhello,\n', "line 4: the intent is empty"),
    "a control character": (b"text,intent\nhello,a\x07b\n", "line 2: the intent"),
    "not UTF-8": (b"text,intent\nhello,a\ncaf\xe9,a\n", "line 3: not UTF-8"),
    "an open quote": (b'text,intent\n"hello,a\n', "line 2: unexpected end of data"),
    "one class": (b"text,intent\n" + b"hello,a\n" * 10, "every message has the intent 'a'"),
    "too few": (b"text,intent\n" + b"hello,a\n" * 10 + b"bye,b\n", "fewer than 5 messages of: b (1)"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_bad_data_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    """Data that can't be used is refused with what is wrong and where; nothing is written."""
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    assert main(["train", "--data", str(path), "--output", str(tmp_path / "model")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert str(path) in told
    assert not (tmp_path / "model").exists()


def test_all_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    """One run shows every line that has to be mended, up to a screenful."""
    path = tmp_path / "bad.csv"
    path.write_text("text,intent\n" + ",a\n" * 30)
    with pytest.raises(nlu.DatasetError) as refused:
        read_dataset(path)
    assert len(refused.value.problems) == 30
    assert str(refused.value).endswith("... and 10 more")
    with pytest.raises(nlu.DatasetError, match="No such file"):
        read_dataset(tmp_path / "nowhere.csv")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    """Further columns, a byte order mark and texts of several lines are fine; lines are counted right."""
    path = tmp_path / "data.csv"
    path.write_text('id,intent,text\r\n1,a,"two\r\nlines"\r\n2,b,one\r\n', encoding="utf-8-sig", newline="")
    dataset = read_dataset(path)
    assert dataset.texts == ("two\r\nlines", "one")
    assert dataset.intents == ("a", "b")
    assert dataset.lines == (2, 4)


def test_contradictions_in_the_data_are_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same text with two intents is worth a warning, with both lines."""
    path = tmp_path / "data.csv"
    path.write_text(data.read_text() + "Where is  my parcel,other\n")
    assert main(["train", "--data", str(path), "--output", str(tmp_path / "model"), "--bits", "10"]) == 0
    lines = len(path.read_text().splitlines())
    assert f"lines 2 and {lines} have the same text and different intents" in capsys.readouterr().err


def test_without_the_training_libraries_the_remedy_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the extra is not installed, as in the agent's image, training says what to install."""
    monkeypatch.delitem(sys.modules, "supportfleet_runtime.nlu.train")
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    assert main(["train", "--data", str(data), "--output", str(tmp_path / "model")]) == 2
    assert "supportfleet[train]" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--max-rejected", "1"), ("--max-rejected", "x"), ("--created-at", "today")])
def test_options_that_make_no_sense_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    """A wrong option is named, with what it may be."""
    with pytest.raises(SystemExit) as refused:
        main(["train", "--data", str(data), "--output", str(tmp_path / "model"), *option])
    assert refused.value.code == 2
    assert f"argument {option[0]}: {option[1]!r} is no" in capsys.readouterr().err


def test_a_folder_with_other_files_is_not_written_to(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training never mixes a model into a folder that holds something else."""
    (tmp_path / "notes.txt").touch()
    assert main(["train", "--data", str(data), "--output", str(tmp_path), "--bits", "10"]) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


margins = st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=4, max_size=30)


@settings(max_examples=30)
@given(margins, st.sampled_from([2, None]), st.data())
def test_calibration_is_never_worse_than_none(rows: list[list[float]], other: int | None, data: st.DataObject) -> None:
    """The calibrated probabilities of what was right are at least those of the plain margins."""
    values = np.array(rows)
    targets = np.array([data.draw(st.integers(0, 2)) for _ in rows])

    def likelihood(calibration: Calibration) -> float:
        logits = calibration.logits(values.copy(), other)
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return float(np.log(scores[np.arange(len(rows)), targets] / scores.sum(axis=1) + 1e-300).mean())

    assert likelihood(calibrate(values, targets, other)) >= likelihood(Calibration(5.0, 0.0)) - 1e-3


def test_no_mistakes_are_no_certainty() -> None:
    """From a few messages that were all understood, the calibration does not conclude that it is always right."""
    targets = np.array([0, 1] * 10)
    calibration = calibrate(np.where(np.eye(2)[targets] > 0, 0.9, -0.9), targets, None)
    assert 1 < calibration.sharpness < 20


@given(
    st.lists(st.tuples(st.floats(0.34, 1), st.booleans()), min_size=1, max_size=50),
    st.floats(0, 0.5),
)
def test_the_threshold_turns_away_no_more_than_allowed(rows: list[tuple[float, bool]], share: float) -> None:
    """Of the messages that were understood, at most the given share lies below the threshold."""
    scores = np.array(
        [[confidence, 1 - confidence] if confidence > 0.5 else [confidence, 0.0] for confidence, _ in rows]
    )
    targets = np.array([0 if right else 1 for _, right in rows])
    threshold = choose_threshold(scores, targets, None, share)
    right = scores.max(axis=1)[scores.argmax(axis=1) == targets]
    assert (right < threshold).sum() <= share * len(right) + 1e-9
    assert 0 <= threshold <= 0.5


def test_quantizing_keeps_weights_within_half_a_step() -> None:
    """int8 weights differ from the trained ones by no more than half a step of their label's scale."""
    weights = np.random.default_rng(0).normal(size=(1000, 5)) * np.array([1, 10, 0.01, 0, 100])
    rows, scale = quantize(weights)
    assert rows.dtype == np.int8
    assert (np.abs(rows * scale.astype(np.float64) - weights) <= 0.51 * scale).all()


def test_figures_count_what_they_say() -> None:
    """Accuracy, recall and precision are those of the textbook; turning an in-scope message away is a mistake."""
    figures = evaluate(["a", "a", "b", "other"], ["a", "other", "a", "other"], "other")
    assert figures.accuracy == 0.5
    assert figures.in_scope_accuracy == pytest.approx(1 / 3)
    assert figures.out_of_scope_recall == 1
    assert figures.intents["a"].precision == 0.5
    assert figures.intents["a"].recall == 0.5
    assert figures.intents["b"].precision == 0
    assert evaluate(["a"], ["a"], "other").out_of_scope_recall is None
    assert evaluate(["other"], ["a"], "other").in_scope_accuracy is None
