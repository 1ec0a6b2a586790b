"""Identifiers: a prefix that says of what, and a ULID (time, then 80 random bits), so that they sort by age.

Nobody can guess one. They are made where a thing is first known, before it is stored, so that whoever waits for it can
wait from the start.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from supportfleet_runtime.entropy import random_bytes

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS: Final = tuple(range(120, -1, -10))
"""Of ten bits each, which two characters hold: thirteen pairs are the 26 characters of a ULID."""


def new_id(prefix: str, now: datetime) -> str:
    """A fresh identifier such as ``task_01KAJ3…``."""
    return _id(prefix, now, int.from_bytes(random_bytes(10), "big"))


def first_id(prefix: str, moment: datetime) -> str:
    """The least identifier of a moment: those made before it are less, others are not."""
    return _id(prefix, moment, 0)


def _id(prefix: str, moment: datetime, rest: int) -> str:
    value = (int(moment.timestamp() * 1000) << 80) | rest
    return f"{prefix}_{''.join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])}"
