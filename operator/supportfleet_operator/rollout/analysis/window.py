"""What the pods of two revisions counted since the measurement began.

Each scrape adds, for each pod, what it counted since the scrape before. A process that started again counted all that
it has since then. A pod that is seen for the first time adds nothing yet: what it counted may be of an earlier
measurement. A pod that doesn't answer keeps its place, and adds it all up when it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from supportfleet_operator.api.status import MAX_SAMPLED
from supportfleet_operator.rollout.analysis.reading import START

CANARY: Final = "@canary"
STABLE: Final = "@stable"
"""Keys of the sums, beside those of pods: no pod has such a name."""
SCRAPES: Final = "scrapes"
"""Counts how often was looked, so that a window that has begun is told from none."""
MOST_PODS: Final = MAX_SAMPLED // 2 - 1
"""Of each revision: what there is room for beside the two sums."""

Counters = Mapping[str, float]
Window = Mapping[str, Counters]


def advance(window: Window, canary: Mapping[str, Counters], stable: Mapping[str, Counters]) -> Window:
    """The window after another look at the pods."""
    rest = {pod for pod in window if pod not in {CANARY, STABLE, *canary, *stable}}
    after: dict[str, Counters] = {}
    for key, seen in ((CANARY, canary), (STABLE, stable)):
        chosen = _chosen(window, seen)
        sums = add([window.get(key, {}), *(_counted(window.get(pod), seen[pod]) for pod in chosen)])
        after[key] = {**sums, SCRAPES: window.get(key, {}).get(SCRAPES, 0) + 1}
        after |= {pod: seen[pod] for pod in chosen}
    room = MAX_SAMPLED - len(after)
    return after | {pod: window[pod] for pod in sorted(rest)[:room]}


def renewed(window: Window) -> Window:
    """The window that begins where this one ends."""
    return {**window, CANARY: {SCRAPES: 1.0}, STABLE: {SCRAPES: 1.0}}


def add(parts: Iterable[Counters]) -> dict[str, float]:
    """The sum, by name."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _chosen(window: Window, seen: Mapping[str, Counters]) -> list[str]:
    return sorted(seen, key=lambda pod: (pod not in window, pod))[:MOST_PODS]


def _counted(before: Counters | None, now: Counters) -> Counters:
    counted = {name: value for name, value in now.items() if name != START}
    if before is None:
        return dict.fromkeys(counted, 0.0)
    fell = any(value < before.get(name, 0.0) for name, value in counted.items())
    if fell or now.get(START) != before.get(START):
        return counted
    return {name: value - before.get(name, 0.0) for name, value in counted.items()}
