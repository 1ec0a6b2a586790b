"""What the agent needs of a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Utterance:
    """One side's contribution."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Prompt:
    """What the model is shown. The last utterance is the customer's."""

    system: str
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True)
class Completion:
    """What the model said, and which model it was."""

    text: str
    model: str


class Provider(Protocol):
    """A language model. It owns its retries and its time limit."""

    async def complete(self, prompt: Prompt, *, within: float) -> Completion:
        """The reply, in so many seconds at most; raises ``ProviderError`` where there is none, and nothing else."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
