"""Identifiers: a prefix that says of what, and a ULID (time, then 80 random bits), so that they sort by age.

Nobody can guess one. They are made where a thing is first known, before it is stored, so that whoever waits for it can
wait from the start.
"""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26


def new_id(prefix: str, now: datetime) -> str:
    """A fresh identifier such as ``task_01KAJ3…``."""
    return _id(prefix, now, secrets.randbits(80))


def first_id(prefix: str, moment: datetime) -> str:
    """The least identifier of a moment: those made before it are less, others are not."""
    return _id(prefix, moment, 0)


def _id(prefix: str, moment: datetime, rest: int) -> str:
    value = (int(moment.timestamp() * 1000) << 80) | rest
    digits = []
    for _ in range(_LENGTH):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
