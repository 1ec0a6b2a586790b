"""What the agent needs of a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from supportfleet_runtime.agent.draft import Draft
from supportfleet_runtime.agent.toolbox import ToolSession


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

    async def complete(self, prompt: Prompt, *, within: float, draft: Draft | None = None) -> Completion:
        """The reply, in so many seconds at most; raises ``ProviderError`` where there is none, and nothing else.

        A ``draft`` is told the reply as it comes, where the model can do so; where it breaks off, that it is void.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ToolUser(Provider, Protocol):
    """A language model that can use tools."""

    async def complete_with_tools(
        self, prompt: Prompt, tools: ToolSession, *, within: float, draft: Draft | None = None
    ) -> Completion:
        """The reply, after as many calls of tools as the model asks for and the session allows.

        Raises ``ProviderError``: ``tool_limit`` where the model asks for more than that, ``tools_unavailable`` and
        ``tools_slow`` where it was the tools' fault. The ``draft`` has what the model says before it calls a tool, too,
        until it says more.
        """
        ...
