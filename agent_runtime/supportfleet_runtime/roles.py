"""What a process does of an agent's work: all of it, or one half, so that each half can be scaled by itself.

Halves share the database and, where one is configured, the broker; whatever is between them is durable.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Named as the subcommand that runs it."""

    SERVE = "serve"
    GATEWAY = "gateway"
    WORKER = "worker"

    @property
    def takes_messages(self) -> bool:
        """Whether customers are served here."""
        return self is not Role.WORKER

    @property
    def works(self) -> bool:
        """Whether messages are answered here, which takes the model and the language model."""
        return self is not Role.GATEWAY
