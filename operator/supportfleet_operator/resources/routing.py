"""Where requests go: what a rollout decided, as the builders need it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NOBODY: Final = "none"
"""Stands for the revision that no pod has."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Which revisions get which requests."""

    weights: Mapping[str, int] = field(default_factory=dict)
    """Percent of the requests, by revision; they add up to 100. Empty while no revision serves yet."""
    matched: str | None = None
    """The revision for requests that ``spec.rollout.match`` chooses, once it can take them; else they go by weight."""
    service: str | None = None
    """The revision whose pods the agent's Service selects; None for all of the agent's pods, NOBODY for none."""
    mirror: tuple[str, int] | None = None
    """The revision that gets copies of the others' requests, and of how many in a hundred."""
    sticky: tuple[str, ...] = ()
    """Revisions that customers stay with, the most important first. Without ``spec.traffic.stickiness`` nobody does."""

    def __post_init__(self) -> None:
        if self.weights and sum(self.weights.values()) != 100:  # noqa: PLR2004 - percent
            raise ValueError(f"the weights {dict(self.weights)} don't add up to 100")
