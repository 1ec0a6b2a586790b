"""``selftest.json``: what a model said when it was trained, so that whoever loads it can see that it still does.

Digests tell that the bytes are the published ones; not that labels and graph belong together, nor that this runtime
computes what the trainer's did. So training keeps, for each intent, one message that the finished model understands,
with the confidence it had. A model without the file (an older one) is loaded without this check.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from supportfleet_runtime.nlu.errors import SelfTestError
from supportfleet_runtime.nlu.model_file import SELF_TEST, Part, invalid, to_json

TOLERANCE: Final = 0.02
"""How far a confidence may be off: processors differ in the last digits, other models by far more."""
DIGITS: Final = 2
"""What is kept of a confidence: the digits that processors differ in must not reach the artifact's digest."""
MAX_PROBES: Final = 1000
MAX_CHARACTERS: Final = 2000


class Probe(Part):
    """A message, the label it got and how sure that was."""

    text: str = Field(max_length=MAX_CHARACTERS)
    label: str
    confidence: float = Field(ge=0, le=1)


class SelfTest(Part):
    """``selftest.json``."""

    schema_version: int = Field(default=1, ge=1, le=1)
    labels: list[str]
    """The labels in the order of the graph's scores: ``labels.json`` must be these."""
    probes: list[Probe] = Field(max_length=MAX_PROBES)

    def render(self) -> bytes:
        """The same bytes for the same test."""
        return to_json(self.model_dump(by_alias=True))


class Guess(Protocol):
    """What is used of a prediction."""

    @property
    def candidate(self) -> str: ...  # noqa: D102 - named by the class
    @property
    def confidence(self) -> float: ...  # noqa: D102


def choose_probes(
    labels: Sequence[str], examples: Iterable[tuple[str, str]], classify: Callable[[str], Guess]
) -> SelfTest:
    """For each label the first example of it that the model gets right."""
    found: dict[str, Probe] = {}
    for text, label in examples:
        if label in found or len(text) > MAX_CHARACTERS:
            continue
        guess = classify(text)
        if guess.candidate == label:
            found[label] = Probe(text=text, label=label, confidence=round(min(1.0, guess.confidence), DIGITS))
    return SelfTest(labels=list(labels), probes=[found[label] for label in labels if label in found][:MAX_PROBES])


def parse_self_test(data: bytes) -> SelfTest:
    """Read ``selftest.json``.

    Raises:
        ModelLoadError: It is no such file.
    """
    try:
        return SelfTest.model_validate_json(data)
    except ValidationError as error:
        raise invalid(SELF_TEST, error) from error


def run_self_test(
    test: SelfTest, labels: Sequence[str], probabilities: Callable[[Sequence[str]], NDArray[np.float32]]
) -> None:
    """Ask the probes.

    Raises:
        SelfTestError: An answer is not the one it should be. The message quotes no text of the training data.
    """
    if list(labels) != test.labels:
        raise SelfTestError(f"labels.json is not what the model was trained with: {SELF_TEST} has other labels")
    rows = probabilities([probe.text for probe in test.probes])
    for number, (probe, row) in enumerate(zip(test.probes, rows, strict=True), start=1):
        best = int(row.argmax())
        if labels[best] != probe.label:
            raise SelfTestError(f"probe {number} of {SELF_TEST} should be {probe.label!r} and is {labels[best]!r}")
        if abs(float(row[best]) - probe.confidence) > TOLERANCE:
            raise SelfTestError(
                f"probe {number} of {SELF_TEST} ({probe.label!r}) should have the confidence {probe.confidence:.3f}"
                f" and has {float(row[best]):.3f}"
            )
