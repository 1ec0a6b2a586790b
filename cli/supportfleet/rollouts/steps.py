"""The steps of a rollout in words, and the time that they take at least."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

Step = Mapping[str, Any]

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


def duration(seconds: float) -> str:
    """A duration as kubectl writes it: two units at most."""
    whole = max(0, math.floor(seconds))
    for unit, size, lower, part in (("d", DAY, "h", HOUR), ("h", HOUR, "m", MINUTE), ("m", MINUTE, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}{rest}{lower}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def in_words(step: Step) -> str:
    """What a step does."""
    if "setWeight" in step:
        return f"weight {step['setWeight']} %"
    if "setMirror" in step:
        return f"copy {step['setMirror']} % of the requests" if step["setMirror"] else "end copying requests"
    if "pause" in step:
        seconds = pause_of(step)
        return "pause until somebody resumes or promotes" if seconds is None else f"pause {duration(seconds)}"
    if "analysis" in step:
        return "wait for an analysis that passes"
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in step.items())


def pause_of(step: Step) -> float | None:
    """Seconds that a step pauses; None until a person ends it, and where it is no pause."""
    seconds = (step.get("pause") or {}).get("durationSeconds")
    return None if seconds is None else float(seconds)


def waits_for_person(step: Step) -> bool:
    """Whether only a person ends this step."""
    return "pause" in step and pause_of(step) is None


def least_seconds(steps: Sequence[Step], interval: float | None, *, always_measured: bool = False) -> float:
    """The time that steps take at least, with pods that are ready at once and people that answer at once.

    With an analysis every ``interval`` seconds, a weight or a mirror is left after a measurement at it, which takes one
    interval; pauses count towards it. A step that waits for an analysis begins one of its own. An A/B test is measured
    (``always_measured``) from its beginning.
    """
    now, weight = 0.0, 0
    measured = interval if always_measured else None
    for step in steps:
        if "pause" in step:
            now += pause_of(step) or 0.0
        elif interval is not None and "analysis" in step:
            measured = now = now + interval
        elif "setWeight" in step or "setMirror" in step:
            now = now if measured is None else max(now, measured)
            weight = step.get("setWeight", weight)
            is_tried = always_measured or weight > 0 or step.get("setMirror", 0) > 0
            measured = now + interval if interval is not None and is_tried else None
    return now if measured is None else max(now, measured)
