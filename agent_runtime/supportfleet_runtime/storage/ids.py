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
    value = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    digits = []
    for _ in range(_LENGTH):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
