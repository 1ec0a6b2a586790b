"""What can go wrong with intents.

::

    SupportfleetError
    └── NluError
        ├── DatasetError    the training data can't be used: every problem with its line
        ├── TrainingError   the data is well-formed, but nothing can be learned from it
        └── ModelLoadError  a model's folder can't be loaded
            └── SelfTestError  it runs, but answers otherwise than when it was trained
"""

from collections.abc import Sequence
from pathlib import Path

from supportfleet_runtime.errors import SupportfleetError
from supportfleet_runtime.models.errors import Reason

SHOWN_PROBLEMS = 20


class NluError(SupportfleetError):
    """Base of what this package raises."""


class DatasetError(NluError):
    """A file of labelled messages is not usable."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.path = path
        self.problems = tuple(problems)
        shown = list(self.problems[:SHOWN_PROBLEMS])
        if hidden := len(self.problems) - len(shown):
            shown.append(f"... and {hidden} more")
        super().__init__("\n".join(f"{path}: {problem}" for problem in shown))


class TrainingError(NluError):
    """The data does not let a classifier be trained."""


class ModelLoadError(NluError):
    """This folder does not hold a model that can be run."""

    reason = Reason.LOAD_FAILED
    """As of an ``ArtifactError``: one word for metrics and conditions."""


class SelfTestError(ModelLoadError):
    """The model runs, but does not answer as it did when it was trained."""

    reason = Reason.SELF_TEST_FAILED
