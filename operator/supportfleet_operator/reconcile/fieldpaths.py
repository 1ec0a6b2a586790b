"""Field paths as server-side apply writes them: ``.spec.template.spec.containers[name="agent"].image``."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, Final

_STEP: Final = re.compile(
    r'\.(?P<field>(?:[^.\[\]"]|"(?:[^"\\]|\\.)*")+)|\[(?P<item>(?:[^\[\]"]|"(?:[^"\\]|\\.)*")*)\]'
)


Steps = list[dict[str, str | None]]


def remove(manifest: dict[str, Any], path: str) -> bool:
    """Remove a field from a manifest in place; False where it is not there."""
    steps = [match.groupdict() for match in _STEP.finditer(path)]
    place = _locate(manifest, steps) if steps else None
    if place is None:
        return False
    container, key = place
    del container[key]
    return True


def _locate(value: Any, steps: Steps) -> tuple[Any, Any] | None:
    """The dict or list that holds the field, and its key or index there."""
    taken, key = _step(value, steps)
    if key is None:
        return None
    return (value, key) if taken == len(steps) else _locate(value[key], steps[taken:])


def _step(value: Any, steps: Steps) -> tuple[int, Any]:
    """The next key, and how many steps it takes: keys of maps may hold dots, which the notation does not escape."""
    item = steps[0]["item"]
    if item is not None:
        return 1, _index(value, item)
    if isinstance(value, dict):
        names = [step["field"] for step in itertools.takewhile(lambda step: step["field"] is not None, steps)]
        for count in range(len(names), 0, -1):
            key = ".".join(map(str, names[:count]))
            if key in value:
                return count, key
    return 0, None


def _index(items: Any, item: str) -> int | None:
    """The place of a list's item, by number, by key or by value."""
    if not isinstance(items, list):
        return None
    if item.isdigit():
        return int(item) if int(item) < len(items) else None
    if item.startswith("="):
        wanted = json.loads(item[1:])
        return items.index(wanted) if wanted in items else None
    keys = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^,]+)', item))
    for index, one in enumerate(items):
        if isinstance(one, dict) and all(one.get(key) == json.loads(text) for key, text in keys.items()):
            return index
    return None
