"""``supportfleet-runtime train``: from labelled messages to a model artifact, judged honestly.

What is printed about the training data comes from cross-validation: every message judged by a model that had not seen
it. What is printed about ``--eval`` is the finished artifact itself, run as pods run it.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from supportfleet_runtime.models.artifact import Artifact, make_artifact, write_artifact
from supportfleet_runtime.models.errors import ArtifactError, Reason
from supportfleet_runtime.nlu.classifier import classifier_of
from supportfleet_runtime.nlu.dataset import Dataset, read_dataset
from supportfleet_runtime.nlu.errors import NluError, TrainingError
from supportfleet_runtime.nlu.evaluate import Figures, evaluate, report
from supportfleet_runtime.nlu.features import MAX_BITS, MIN_BITS, FeatureSettings
from supportfleet_runtime.nlu.model_file import GRAPH, LABELS, SELF_TEST, SETTINGS, Featurizer, ModelSettings, to_json
from supportfleet_runtime.nlu.self_test import choose_probes

HELP: Final = "train an intent model from labelled texts"
SHOWN_CONFLICTS: Final = 5
PER_INTENT_LIMIT: Final = 40
"""With more intents than this, the table of each is left out unless asked for."""


@dataclass(frozen=True)
class Result:
    """A trained artifact and its figures."""

    artifact: Artifact
    threshold: float
    cross_validation: Figures
    held_out: Figures | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="CSV", help="labelled messages: columns text,intent")
    add("--output", type=Path, required=True, metavar="DIR", help="where to write the artifact")
    add("--eval", type=Path, metavar="CSV", help="held-out messages to judge the finished model on")
    add("--name", default="intent", help="the model's name (default %(default)s)")
    add("--version", default="1", help="the artifact's version (default %(default)s)")
    add("--seed", type=int, default=0, help="of shuffling and fitting (default %(default)s)")
    add("--out-of-scope", default="other", metavar="LABEL", help="the intent of what fits none (default %(default)s)")
    add(
        "--max-rejected",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="the share of rightly understood messages that the threshold may turn away (default %(default)s)",
    )
    add(
        "--bits",
        type=int,
        choices=range(MIN_BITS, MAX_BITS + 1),
        default=FeatureSettings().bits,
        metavar="N",
        help="2^N hash buckets (default %(default)s)",
    )
    add("--created-at", type=_moment, metavar="RFC3339", help="default: SOURCE_DATE_EPOCH, else now")
    add("--per-intent", action="store_true", help="show the figures of each intent however many there are")


def run(arguments: argparse.Namespace) -> int:
    """Train; the exit code."""
    started = time.perf_counter()
    try:
        data = read_dataset(arguments.data)
        held_out = read_dataset(arguments.eval) if arguments.eval else None
        created_at = arguments.created_at or creation_time(os.environ)
        result = build(data, held_out, arguments, created_at)
        write_artifact(arguments.output, result.artifact)
    except (NluError, ArtifactError) as error:
        sys.stderr.write(f"{error}\n")
        return getattr(error, "exit_code", 2)
    sys.stderr.write(_summary(data, held_out, result, arguments, time.perf_counter() - started))
    sys.stdout.write(f"{result.artifact.digest}\n")
    return 0


def build(data: Dataset, held_out: Dataset | None, arguments: argparse.Namespace, created_at: str) -> Result:
    """Train and judge an artifact, in memory.

    Raises:
        NluError: The data can't be used.
        ArtifactError: The name or version can't be those of an artifact.
    """
    try:
        from supportfleet_runtime.nlu.export import export_onnx  # noqa: PLC0415 - scikit-learn and onnx only to train
        from supportfleet_runtime.nlu.train import TrainingSettings, train  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise TrainingError(f"{error.name} is not installed: pip install 'supportfleet[train]'") from error

    features = FeatureSettings(bits=arguments.bits)
    trained = train(data, TrainingSettings(features, arguments.out_of_scope, arguments.max_rejected, arguments.seed))
    files = {GRAPH: export_onnx(trained.model), LABELS: to_json(trained.labels)}
    metrics = {"crossValidation": trained.cross_validation.summary()}
    settings = ModelSettings(
        featurizer=Featurizer(bits=features.bits, max_characters=features.max_characters),
        out_of_scope=arguments.out_of_scope,
        threshold=trained.threshold,
        metrics=metrics,
        training={"data": data.sha256, "messages": len(data.texts), "seed": arguments.seed},
    )

    def artifact(settings: ModelSettings) -> Artifact:
        content = {**files, SETTINGS: settings.render()}
        return make_artifact(name=arguments.name, version=arguments.version, created_at=created_at, files=content)

    classifier = classifier_of(artifact(settings))
    examples = zip(data.texts, data.intents, strict=True)
    files[SELF_TEST] = choose_probes(trained.labels, examples, classifier.classify).render()
    if held_out is None:
        return Result(artifact(settings), trained.threshold, trained.cross_validation, None)
    guesses = [classifier.classify(text).intent for text in held_out.texts]
    figures = evaluate(held_out.intents, guesses, arguments.out_of_scope)
    settings = settings.model_copy(update={"metrics": {**metrics, "heldOut": figures.summary()}})
    return Result(artifact(settings), trained.threshold, trained.cross_validation, figures)


def creation_time(environ: Mapping[str, str]) -> str:
    """The moment an artifact says it was made; ``SOURCE_DATE_EPOCH`` makes builds reproducible.

    Raises:
        ArtifactError: InvalidSettings.
    """
    given = environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.fromtimestamp(int(given), UTC) if given else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ArtifactError(Reason.INVALID_SETTINGS, f"SOURCE_DATE_EPOCH is {given!r}; it must be seconds") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(data: Dataset, held_out: Dataset | None, result: Result, arguments: Any, seconds: float) -> str:
    labels = len(data.labels)
    shown = arguments.per_intent or labels <= PER_INTENT_LIMIT
    lines = [
        *(
            f"{data.path}: lines {first} and {line} have the same text and different intents"
            for line, first in data.conflicts()[:SHOWN_CONFLICTS]
        ),
        f"{arguments.name} {arguments.version}: {labels} intents from {len(data.texts)} messages in {seconds:.1f} s",
        f"below a confidence of {result.threshold:.3f} a message counts as {arguments.out_of_scope!r}",
        report("cross-validation", result.cross_validation, per_intent=shown and held_out is None),
    ]
    if held_out is not None and result.held_out is not None:
        lines.append(report(str(held_out.path), result.held_out, per_intent=shown))
        if unknown := sorted(set(held_out.intents) - set(data.labels) - {arguments.out_of_scope}):
            lines.append(f"  never seen in training, so never right: {', '.join(unknown)}")
    size = result.artifact.manifest.total_bytes
    lines.append(f"written to {arguments.output}: {size / 1024:.0f} KiB")
    return "\n".join(lines) + "\n"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 up to 1")
    return value


def _moment(text: str) -> str:
    try:
        zone = datetime.fromisoformat(text).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time with a zone, like 2026-01-31T12:00:00Z")
    return text
