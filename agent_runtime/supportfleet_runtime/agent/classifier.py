"""Intents: what the agent needs of a classifier, and the keywords it falls back to where no model is configured."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

OTHER: Final = "other"
"""The intent of everything the rules don't answer."""
CACHED_ANSWERS: Final = 4096
"""Some 1 MB."""


class ModelInfo(Protocol):
    """Which model it is. ``digest`` is empty for a built-in one."""

    @property
    def version(self) -> str: ...  # noqa: D102 - named by the class
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def threshold(self) -> float: ...  # noqa: D102


class Prediction(Protocol):
    """The likeliest intent (``candidate``) with its probability, whatever the model's own threshold says."""

    @property
    def candidate(self) -> str: ...  # noqa: D102 - named by the class
    @property
    def confidence(self) -> float: ...  # noqa: D102


class IntentClassifier(Protocol):
    """Tells what a customer wants. It runs on the event loop, so it must answer within a millisecond or so."""

    @property
    def info(self) -> ModelInfo: ...  # noqa: D102 - named by the class

    def classify(self, text: str) -> Prediction:
        """Never fails, whatever the text."""
        ...


def load_model(path: Path) -> IntentClassifier:
    """Load a model's folder. Slow, and it imports ONNX Runtime: call it in a thread."""
    from supportfleet_runtime import nlu  # noqa: PLC0415 - only an agent with a model pays for its runtime

    classifier: IntentClassifier = nlu.load(path)
    return classifier


class CachedClassifier:
    """A classifier that remembers what it was asked lately: customers ask the same things.

    One is made for each model, so an answer is never another model's. Texts are kept as their hashes alone.
    """

    def __init__(self, classifier: IntentClassifier, size: int = CACHED_ANSWERS) -> None:
        self.info = classifier.info
        self._classifier = classifier
        self._size = size
        self._known: OrderedDict[bytes, Prediction] = OrderedDict()

    def classify(self, text: str) -> Prediction:
        """What the model says of ``text``, now or before."""
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        found = self._known[key] = self._classifier.classify(text)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return found


@dataclass(frozen=True)
class KeywordInfo:
    """The built-in keywords as a "model"."""

    labels: tuple[str, ...]
    version: str = "builtin"
    digest: str = ""
    threshold: float = 0.5


@dataclass(frozen=True)
class KeywordPrediction:
    """What the keywords say."""

    candidate: str
    confidence: float


_KEYWORDS: Final = {
    "human": r"\b(human|person|representative|supervisor|manager|live agent|(talk|speak) to (someone|an? agent))\b",
    "password_reset": r"\b(password|passcode|log ?in|sign ?in|locked out)\b",
    "refund": r"\b(refund\w*|money back|return(ed|ing)? (it|this|an?|my|the)|reimburse\w*)\b",
    "address_change": r"\b(address|deliver (it )?(somewhere|to another)|moved (house|home))\b",
    "detailed_history": r"\b((order|purchase) history|((all|list)( of)? my|past) (orders|purchases))\b",
    "order_status": r"\b(where('s| is) my|track\w*|order|parcel|package|delivery|shipp\w+|arrive\w*)\b",
    "greeting": r"^\W*(hi|hello|hey|good (morning|afternoon|evening))\b\W*(there)?\W*$",
}


class KeywordClassifier:
    """A few patterns, tried in order: enough to try the agent, no replacement for a trained model."""

    def __init__(self) -> None:
        self._patterns = [(intent, re.compile(pattern, re.IGNORECASE)) for intent, pattern in _KEYWORDS.items()]
        self.info = KeywordInfo(labels=(*_KEYWORDS, OTHER))

    def classify(self, text: str) -> KeywordPrediction:
        """The first intent whose pattern occurs."""
        for intent, pattern in self._patterns:
            if pattern.search(text):
                return KeywordPrediction(intent, 1.0)
        return KeywordPrediction(OTHER, 1.0)
