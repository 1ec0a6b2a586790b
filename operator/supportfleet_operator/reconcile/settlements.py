"""What came of a write, where that is not simply what was asked for.

The API server or a webhook may store another value than the one applied, and another controller may hold a field.
Asking again at every look would be a fight, and would cost a write each time. So the applier remembers, for each child,
which differences were left after its write and who holds which field; as long as the live object differs in just that
way, there is nothing to do. It is memory only: after a restart each such child costs one more write, which changes
nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from supportfleet_operator.reconcile.drift import Difference

ASK_AGAIN: Final = dt.timedelta(minutes=5)
"""A field that another controller holds is asked for again after this long: it may have let go."""


REMEMBERED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Holder:
    """A field of a child that another manager holds at another value."""

    manager: str
    field: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of the last write of one child."""

    stamp: str
    """Hash of the manifest."""
    left: bytes
    """The differences that stayed."""
    holders: tuple[Holder, ...]
    at: dt.datetime

    def covers(self, stamp: str, left: Sequence[Difference], now: dt.datetime) -> bool:
        """Whether a live object is as this write left it, so that writing again would change nothing."""
        if self.holders and now - self.at >= ASK_AGAIN:
            return False
        return self.stamp == stamp and self.left == fingerprint(left)


def fingerprint(left: Sequence[Difference]) -> bytes:
    """Differences as one comparable value."""
    return orjson.dumps([[one.path, one.live] for one in left], option=orjson.OPT_SORT_KEYS)
