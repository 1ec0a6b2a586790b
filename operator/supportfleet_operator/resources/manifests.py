"""Sets of manifests, in the order in which they are applied."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifests:
    """Manifests in the order in which they are applied; None for what the agent doesn't want."""

    def __iter__(self) -> Iterator[Manifest]:
        """The manifests that are wanted, in order, those of sets within it in their place."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                yield value
            elif isinstance(value, tuple):
                for inner in value:
                    yield from inner
