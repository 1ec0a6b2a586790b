"""Intent models: how well, how fast and how small, beside scikit-learn's TF-IDF with a linear SVM in the same run.

    python benchmarks/nlu.py --train TRAIN.csv --test TEST.csv [--out-of-scope LABEL]

Both learn from the same file and are judged on the same one. Accuracy is given twice for ours: of the best label, which
is what the baseline gives, and of the intent after the threshold, where turning an in-scope message away is a mistake.
The artifact is loaded in a process of its own, so that its memory is that of a pod that serves it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from supportfleet_runtime.__main__ import main as runtime
from supportfleet_runtime.nlu.dataset import Dataset, read_dataset

EXAMPLES = Path(__file__).parent.parent / "examples" / "data"
MEASURED = 2000
MEASURE = "measure"


def resident_mib() -> float:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def latencies(classify: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds for each of some texts, one at a time."""
    sample = (list(texts) * (MEASURED // len(texts) + 1))[:MEASURED]
    for text in sample[:50]:
        classify(text)
    taken = []
    for text in sample:
        started = time.perf_counter()
        classify(text)
        taken.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    return {"mean": statistics.fmean(taken), "p50": cuts[49], "p99": cuts[98]}


def measure(model: Path, test: Path) -> dict[str, Any]:
    """In a fresh process: load the artifact, judge it, time it."""
    before = resident_mib()
    started = time.perf_counter()
    from supportfleet_runtime import nlu  # noqa: PLC0415 - its import is part of what is measured

    classifier = nlu.load(model)
    loaded = time.perf_counter() - started
    dataset = read_dataset(test)
    predictions = [classifier.classify(text) for text in dataset.texts]
    started = time.perf_counter()
    for start in range(0, len(dataset.texts), 32):
        classifier.classify_batch(dataset.texts[start : start + 32])
    batched = len(dataset.texts) / (time.perf_counter() - started)
    return {
        "load": loaded,
        "ms": latencies(classifier.classify, dataset.texts),
        "batched": batched,
        "rss": resident_mib(),
        "before": before,
        "candidates": [one.candidate for one in predictions],
        "intents": [one.intent for one in predictions],
    }


def baseline(training: Dataset, test: Dataset) -> tuple[list[str], dict[str, float], float]:
    """TF-IDF over words 1-2 and characters 2-5 with LinearSVC, all settings as scikit-learn has them."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - after our own was timed
    from sklearn.pipeline import make_pipeline, make_union  # noqa: PLC0415
    from sklearn.svm import LinearSVC  # noqa: PLC0415

    started = time.process_time()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, characters), LinearSVC())
    model.fit(training.texts, training.intents)
    seconds = time.process_time() - started
    return list(model.predict(test.texts)), latencies(lambda text: model.predict([text]), test.texts), seconds


def shares(guesses: Sequence[str], truth: Sequence[str], out_of_scope: str) -> str:
    """The share that is right in scope, and out of scope where there is any."""
    inside = [guess == was for guess, was in zip(guesses, truth, strict=True) if was != out_of_scope]
    outside = [guess == was for guess, was in zip(guesses, truth, strict=True) if was == out_of_scope]
    text = f"{100 * sum(inside) / len(inside):5.1f} %"
    return text + (f"  {100 * sum(outside) / len(outside):5.1f} %" if outside else "        -")


def milliseconds(figures: dict[str, float]) -> str:
    """Mean, median and 99th percentile."""
    return f"{figures['mean']:.3f} mean, {figures['p50']:.3f} p50, {figures['p99']:.3f} p99"


def run(arguments: argparse.Namespace) -> None:
    """Train both, judge both, print."""
    training, test = read_dataset(arguments.train), read_dataset(arguments.test)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        started = time.process_time()
        options = ["--data", str(arguments.train), "--output", str(model), "--out-of-scope", arguments.out_of_scope]
        if runtime(["train", *options]):
            sys.exit("training failed")
        seconds = time.process_time() - started
        done = subprocess.run(
            [sys.executable, __file__, MEASURE, str(model), str(arguments.test)],
            capture_output=True,
            check=True,
            timeout=600,
        )
        size = sum(path.stat().st_size for path in model.iterdir())
    ours = json.loads(done.stdout)
    theirs, their_ms, their_seconds = baseline(training, test)
    labels = len(training.labels)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{arguments.train}: {len(training.texts)} messages, {labels} intents; judged on {len(test.texts)}")
    print("                         in scope  out of scope")
    print(f"  ours, best label       {shares(ours['candidates'], test.intents, arguments.out_of_scope)}")
    print(f"  ours, after threshold  {shares(ours['intents'], test.intents, arguments.out_of_scope)}")
    print(f"  scikit-learn           {shares(theirs, test.intents, arguments.out_of_scope)}")
    print(f"  ms a message, ours          {milliseconds(ours['ms'])}")
    print(f"  ms a message, scikit-learn  {milliseconds(their_ms)}")
    print(f"  ours in batches of 32: {ours['batched']:.0f} messages/s on one thread")
    print(f"  artifact {size / (1 << 20):.2f} MiB, import and load {ours['load'] * 1000:.0f} ms")
    print(f"  memory of the process {ours['rss']:.0f} MiB, {ours['rss'] - ours['before']:.0f} MiB of it for the model")
    print(f"  training {seconds:.1f} s of CPU with cross-validation; scikit-learn {their_seconds:.1f} s without")


def main() -> None:
    """Parse the command line."""
    if sys.argv[1:2] == [MEASURE]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=EXAMPLES / "support_intents.csv")
    parser.add_argument("--test", type=Path, default=EXAMPLES / "support_intents_test.csv")
    parser.add_argument("--out-of-scope", default="other")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
