"""The featuriser: a text becomes counts of hashed n-grams.

Characters in runs of 2 to 5 (typos and endings share most of them) and words in runs of 1 and 2 (order matters a
little) are hashed into a fixed number of buckets, so there is no vocabulary to ship and an unseen word still has
features. Hashes are arithmetic on code points: the same on every machine and in every version of Python. Digits all
look alike, since an order number says that there is an order, not what the customer wants.

Training and inference both call ``featurize``; what can vary is in ``FeatureSettings``, which travels in the artifact.
"""

import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

NAME: Final = "hashed-ngrams"
VERSION: Final = 1
"""Raised whenever the same text would get other features: a model of another version must not be run."""

CHARACTER_RUNS: Final = (2, 3, 4, 5)
MIN_BITS: Final = 8
MAX_BITS: Final = 22

_WORD: Final = re.compile(r"\w+")
_DIGIT: Final = re.compile(r"\d")
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_FOLD: Final = np.uint64(33)


@dataclass(frozen=True)
class FeatureSettings:
    """How texts are featurised: ``2 ** bits`` buckets, and how much of a long text is read."""

    bits: int = 16
    max_characters: int = 2000

    @property
    def buckets(self) -> int:
        """The number of buckets."""
        return 1 << self.bits


@dataclass(frozen=True)
class Features:
    """The buckets that a text falls into, ascending, and how often, damped: ``1 + log(count)``."""

    buckets: NDArray[np.int64]
    weights: NDArray[np.float32]


def normalize(text: str, max_characters: int) -> str:
    """What two spellings of the same message have in common."""
    folded = unicodedata.normalize("NFKC", text[:max_characters]).casefold()
    return _DIGIT.sub("0", " ".join(folded.split()))[:max_characters]


def featurize(text: str, settings: FeatureSettings) -> Features:
    """Hash a text's n-grams. Any string is fine, also an empty one or one with lone surrogates."""
    hashes = _hashes(normalize(text, settings.max_characters))
    hashes ^= hashes >> _FOLD
    hashes *= _MULTIPLIER
    found = np.sort((hashes >> np.uint64(64 - settings.bits)).astype(np.int64))
    first = np.flatnonzero(np.diff(found, prepend=-1))
    counts = np.diff(first, append=len(found))
    # In float64 first: the last digit of a logarithm differs between processors, and rounding takes it away.
    return Features(found[first], (1 + np.log(counts.astype(np.float64))).astype(np.float32))


def _hashes(text: str) -> NDArray[np.uint64]:
    """One 64-bit hash for each n-gram; runs of characters extend the run before, as in a rolling hash."""
    characters = np.frombuffer(f" {text} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    grams = []
    run = characters
    for length in CHARACTER_RUNS:
        run = run[:-1] * _MULTIPLIER + characters[length - 1 :]
        grams.append(run)
    words = np.array(
        [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text)], dtype=np.uint64
    )
    grams.append(words * _MULTIPLIER)
    grams.append(words[:-1] * _MULTIPLIER + words[1:])
    return np.concatenate(grams)
