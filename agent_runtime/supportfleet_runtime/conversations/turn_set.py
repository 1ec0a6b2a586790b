"""Which turns of a conversation somebody has been told the replies of: a set of numbers, written as ranges.

Replies come in order but for those that take long, so the set is a range with few holes, and short when written
(``1-12,15``). That makes it a position that needs no clock and no sequence in the database: whatever is stored and not
in the set is still to be told, wherever and whenever it is asked for. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_RANGES: Final = 100
_RANGE: Final = re.compile(r"([1-9][0-9]{0,8})(?:-([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class TurnSet:
    """A set of turns: ascending ranges, first and last turn of each, that don't touch."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, turn: int) -> bool:
        return any(first <= turn <= last for first, last in self.ranges)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges) or "0"

    @property
    def floor(self) -> int:
        """The turn up to which none is missing."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 1 else 0

    def with_turn(self, turn: int) -> TurnSet:
        """The set and one more."""
        return TurnSet(_joined([*self.ranges, (turn, turn)]))

    def without(self, turns: Iterable[int]) -> TurnSet:
        """The set but for these."""
        ranges = list(self.ranges)
        for turn in turns:
            ranges = [part for one in ranges for part in _cut(one, turn)]
        return TurnSet(tuple(ranges))


def up_to(turn: int) -> TurnSet:
    """All turns up to this one."""
    return TurnSet(((1, turn),) if turn else ())


def parse_turn_set(text: str) -> TurnSet:
    """What ``str`` wrote; ``ValueError`` for anything that it can't have written."""
    if text == "0":
        return TurnSet()
    parts = [_RANGE.fullmatch(part) for part in text.split(",", MAX_RANGES)]
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    found = TurnSet(tuple(ranges))
    is_whole = len(ranges) == len(parts) <= MAX_RANGES and all(first <= last for first, last in ranges)
    if not is_whole or str(found) != text or _joined(ranges) != found.ranges:
        raise ValueError("it is no position in a conversation's events")
    return found


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def _cut(one: tuple[int, int], turn: int) -> list[tuple[int, int]]:
    first, last = one
    if not first <= turn <= last:
        return [one]
    return [part for part in ((first, turn - 1), (turn + 1, last)) if part[0] <= part[1]]
